"""Entries of a tensor with continuous indexes: coordinates to grid rows, and the fibre trees.

Coordinates of each mode are mapped affinely to [0, 1] (internally; users see their own units) and
reduced to the sorted distinct values. Values closer than ``MERGE_TOLERANCE`` of the range are one
grid point, since no measurement distinguishes them and the Markov chain gains nothing from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from probkit.tensor.fibers import FiberTree

__all__ = ["MERGE_TOLERANCE", "Entries", "Scaling", "grid_of", "locate"]

MERGE_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Scaling:
    """Affine map of one coordinate to the unit interval: ``(x - offset) / scale``."""

    offset: float
    scale: float

    def apply(self, x: Tensor) -> Tensor:
        """User units to internal ones."""
        return (x - self.offset) / self.scale

    @classmethod
    def of(cls, x: Float[Tensor, " N"]) -> Scaling:
        """Scaling of a column; a constant column gets scale one."""
        low, high = float(x.min()), float(x.max())
        return cls(low, high - low if high > low else 1.0)


@dataclass
class Entries:
    """N entries: for each mode the grid row of every entry, and the targets.

    ``grids[k]`` (D_k,) sorted internal coordinates; ``index[k]`` (N,) rows of it; ``targets`` (N,).
    """

    grids: list[Float[Tensor, " D_k"]]
    index: list[Int64[Tensor, " N"]]
    targets: Float[Tensor, " N"]
    _trees: dict[int, FiberTree] = field(default_factory=dict)

    @property
    def num_entries(self) -> int:
        return self.targets.shape[0]

    @property
    def num_modes(self) -> int:
        return len(self.grids)

    def tree(self, root: int) -> FiberTree:
        """The fibre tree below ``root``, built on first use."""
        if root not in self._trees:
            self._trees[root] = FiberTree(self.index, [g.shape[0] for g in self.grids], root)
        return self._trees[root]

    @classmethod
    def from_columns(
        cls, columns: Sequence[Float[Tensor, " N"]], targets: Float[Tensor, " N"]
    ) -> Entries:
        """Build grids and rows from internal coordinates."""
        grids, index = [], []
        for column in columns:
            grid, rows = grid_of(column)
            grids.append(grid)
            index.append(rows)
        return cls(grids, index, targets)


def grid_of(column: Float[Tensor, " N"]) -> tuple[Float[Tensor, " D"], Int64[Tensor, " N"]]:
    """Distinct sorted values of a column, near-duplicates merged, and each entry's row.

    Example:
        >>> grid, rows = grid_of(torch.tensor([0.5, 0.0, 0.5, 1.0]))
        >>> grid.tolist(), rows.tolist()
        ([0.0, 0.5, 1.0], [1, 0, 1, 2])
    """
    values, rows = torch.unique(column, return_inverse=True)
    gaps = values[1:] - values[:-1]
    if values.numel() > 1 and bool((gaps < MERGE_TOLERANCE).any()):
        new = torch.cat([gaps.new_ones(1, dtype=torch.bool), gaps >= MERGE_TOLERANCE])
        group = torch.cumsum(new, 0) - 1
        values, rows = values[new], group[rows]
    return values, rows


def locate(grid: Float[Tensor, " D"], points: Float[Tensor, " Q"]) -> Int64[Tensor, " Q"]:
    """Row of each point that lies on the grid (within the merge tolerance), -1 elsewhere."""
    right = torch.searchsorted(grid, points).clamp(max=grid.shape[0] - 1)
    left = (right - 1).clamp(min=0)
    use_left = (points - grid[left]).abs() < (points - grid[right]).abs()
    nearest = torch.where(use_left, left, right)
    hit = (points - grid[nearest]).abs() < MERGE_TOLERANCE
    return torch.where(hit, nearest, torch.full_like(nearest, -1))
