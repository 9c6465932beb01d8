"""Where an equation holds: a box with its grid, a part of one, or scattered points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.pde.box_sizes import box_sizes
from probkit.pde.door import as_points, as_sides

__all__ = ["Box", "Mask", "Points"]


@dataclass(frozen=True)
class Box:
    """A box with an equispaced grid, ends included.

    Args:
        bounds: (low, high) of every side.
        num: points along every side; one number for all.

    Raises:
        ConfigurationError: ends that are not finite and increasing, fewer than 4 points on a side,
            or numbers of points that are not one a side.

    Example:
        >>> Box([(0.0, 3.0)], 4).points().flatten().tolist()
        [0.0, 1.0, 2.0, 3.0]
    """

    bounds: Sequence[tuple[float, float]]
    num: int | Sequence[int]

    def __post_init__(self) -> None:
        bounds, num = box_sizes(self.bounds, self.num)
        object.__setattr__(self, "bounds", bounds)
        object.__setattr__(self, "num", num)

    @property
    def dim(self) -> int:
        return len(self.bounds)

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.num,) * self.dim if isinstance(self.num, int) else tuple(self.num)

    def axes(self) -> list[Float[Tensor, " n_k"]]:
        """Coordinates along every side."""
        return [
            torch.linspace(low, high, n, dtype=torch.float64)
            for (low, high), n in zip(self.bounds, self.sizes, strict=True)
        ]

    def points(self) -> Float[Tensor, "n d"]:
        """All grid points, the last axis fastest."""
        return _grid(self.axes())

    def face(self, axis: int, side: int) -> Float[Tensor, "n d"]:
        """Grid points of the face at the low (0) or high (1) end of an axis."""
        axes = self.axes()
        axes[axis] = axes[axis][-1:] if side else axes[axis][:1]
        return _grid(axes)


@dataclass(frozen=True)
class Mask:
    """The grid points of a box that lie inside a domain of any shape.

    Args:
        box: around the domain.
        inside: True at the points that count: a tensor of the grid's shape, or a function of the
            points ``(n, d) -> (n,)``. Conditions on the curved boundary are given at points.

    Example:
        >>> half = Mask(Box([(0.0, 1.0), (0.0, 1.0)], 5), lambda x: x[:, 0] < 0.5)
        >>> tuple(half.points().shape)
        (10, 2)
    """

    box: Box
    inside: Any

    def __post_init__(self) -> None:
        inside = self.inside(self.box.points()) if callable(self.inside) else self.inside
        inside = torch.as_tensor(inside).reshape(-1)
        size = torch.Size(self.box.sizes).numel()
        if inside.dtype != torch.bool or len(inside) != size or not bool(inside.any()):
            raise ConfigurationError(
                message(
                    "A mask says of every grid point whether it is inside, and some are",
                    where="Mask.inside",
                    got=f"{inside.dtype} of {len(inside)} values, {int(inside.sum())} nonzero",
                    expected=f"bool of {size} values",
                )
            )
        object.__setattr__(self, "inside", inside)

    @property
    def dim(self) -> int:
        return self.box.dim

    @property
    def bounds(self) -> Sequence[tuple[float, float]]:
        return self.box.bounds

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.box.sizes

    def axes(self) -> list[Float[Tensor, " n_k"]]:
        """Coordinates along every side."""
        return self.box.axes()

    def points(self) -> Float[Tensor, "n d"]:
        """The points inside, the last axis fastest."""
        return self.box.points()[self.inside]

    def where(self) -> Tensor:
        """Flat positions of the points inside."""
        return self.inside.nonzero()[:, 0]


@dataclass(frozen=True)
class Points:
    """Scattered collocation points.

    Args:
        x: (n, d) points.
        bounds: box around the domain; by default that of the points.

    Raises:
        ShapeError, DtypeError, DataError: points that are no finite matrix, or equal along an axis
            without bounds.
        ConfigurationError: bounds that are not one increasing pair a dimension.

    Example:
        >>> Points(torch.tensor([[0.0, 0.0], [1.0, 0.5]])).bounds
        [(0.0, 1.0), (0.0, 0.5)]
    """

    x: Float[Tensor, "n d"]
    bounds: Sequence[tuple[float, float]] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", as_points(self.x, "Points.x"))
        object.__setattr__(self, "bounds", as_sides(self.bounds, self.x))

    @property
    def dim(self) -> int:
        return self.x.shape[1]

    def points(self) -> Float[Tensor, "n d"]:
        """The points."""
        return self.x


def _grid(axes: Sequence[Tensor]) -> Tensor:
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))
