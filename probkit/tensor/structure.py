"""How factor rows combine to a value: Tucker (a full core) or CP (one weight a component).

    Tucker:  f = sum_g W[g] prod_k u^k[g_k],   g = (g_1, ..., g_K)      G = prod_k R_k weights
    CP:      f = sum_r w[r] prod_k u^k[r]                               G = R weights

Both are a linear function of the vector of weights and, for each mode, of that mode's row. A
structure knows how to contract moments of the weights with sums of products of rows (packed second
moments ``p`` and means ``m``, see ``packing`` and ``fibers``): ``fold_*`` goes from the sums to
one mode's Gaussian site, ``spread_*`` from weights to rows that ``FiberTree.evaluate`` carries to
the entries, ``normal_*`` to the normal equations of the weights.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.tensor.fibers import Combine
from probkit.tensor.packing import num_packed, pack, pack_coefficients, pair_index, unpack

__all__ = ["CP", "Structure", "Tucker", "make_structure"]


@dataclass(frozen=True)
class Structure(ABC):
    """Common part of both structures; ``ranks`` has one entry for each mode."""

    ranks: tuple[int, ...]

    @property
    @abstractmethod
    def combine(self) -> Combine:
        """How features of several modes combine in a :class:`FiberTree`."""

    @property
    @abstractmethod
    def num_weights(self) -> int:
        """Number of weights, G."""

    @abstractmethod
    def slice_index(self, mode: int) -> Tensor:
        """Component of ``mode`` that each weight belongs to, (G,) int64."""

    @abstractmethod
    def pack_second(self, second: Float[Tensor, "G G"]) -> Tensor:
        """Coefficients of ``E[W W']`` against products of packed second moments."""


class Tucker(Structure):
    """A core with one weight for each combination of components."""

    @property
    def combine(self) -> Combine:
        return "outer"

    @property
    def num_weights(self) -> int:
        return math.prod(self.ranks)

    def slice_index(self, mode: int) -> Tensor:
        grids = torch.meshgrid(*[torch.arange(r) for r in self.ranks], indexing="ij")
        return grids[mode].flatten()

    def pack_second(self, second: Tensor) -> Tensor:
        ranks, num_modes = self.ranks, len(self.ranks)
        pairs = [q for k in range(num_modes) for q in (k, num_modes + k)]
        value = second.reshape(*ranks, *ranks).permute(pairs)
        for k, rank in enumerate(ranks):  # pack the pair of axes k, k + 1 in turn
            value = value.reshape(*value.shape[:k], rank, rank, *value.shape[k + 2 :])
            value = pack_coefficients(value.movedim((k, k + 1), (-2, -1))).movedim(-1, k)
        return value

    def fold(self, sums: Tensor, core: Tensor, root: int, order: Sequence[int]) -> Tensor:
        """Contract sums (D, F) with a core over all modes but the root: (D, core size of root)."""
        return sums @ _unfold(core, root, order).mT

    def spread(self, rows: Tensor, core: Tensor, root: int, order: Sequence[int]) -> Tensor:
        """Contract the root's rows (D, .) with a core: (D, F) rows for ``FiberTree.evaluate``."""
        return rows @ _unfold(core, root, order)

    def core(self, weights: Float[Tensor, " G"]) -> Tensor:
        """The vector of weights as a core array."""
        return weights.reshape(self.ranks)

    def normal_vector(self, sums: Tensor, rows: Tensor, root: int, order: Sequence[int]) -> Tensor:
        """Sum over entries of products of means, (G,)."""
        shape = [self.ranks[root], *(self.ranks[k] for k in order)]
        return _refold(rows.mT @ sums, shape, root, order).flatten()

    def normal_matrix(self, sums: Tensor, rows: Tensor, root: int, order: Sequence[int]) -> Tensor:
        """Sum over entries of Kronecker products of second moments, (G, G)."""
        ranks, num_modes = self.ranks, len(self.ranks)
        shape = [num_packed(ranks[root]), *(num_packed(ranks[k]) for k in order)]
        value = _refold(rows.mT @ sums, shape, root, order)
        for k, rank in enumerate(ranks):
            value = value.index_select(2 * k, pair_index(rank, value.device).flatten())
            value = value.reshape(*value.shape[: 2 * k], rank, rank, *value.shape[2 * k + 1 :])
        pairs = [2 * k for k in range(num_modes)] + [2 * k + 1 for k in range(num_modes)]
        return value.permute(pairs).reshape(self.num_weights, self.num_weights)


class CP(Structure):
    """One weight for each component; all ranks are equal."""

    @property
    def combine(self) -> Combine:
        return "hadamard"

    @property
    def num_weights(self) -> int:
        return self.ranks[0]

    def slice_index(self, mode: int) -> Tensor:
        return torch.arange(self.ranks[mode])

    def pack_second(self, second: Tensor) -> Tensor:
        return pack_coefficients(second)

    def fold(self, sums: Tensor, core: Tensor, root: int, order: Sequence[int]) -> Tensor:
        """See :meth:`Tucker.fold`."""
        return sums * core

    def spread(self, rows: Tensor, core: Tensor, root: int, order: Sequence[int]) -> Tensor:
        """See :meth:`Tucker.spread`."""
        return rows * core

    def core(self, weights: Float[Tensor, " G"]) -> Tensor:
        """The vector of weights itself."""
        return weights

    def normal_vector(self, sums: Tensor, rows: Tensor, root: int, order: Sequence[int]) -> Tensor:
        """See :meth:`Tucker.normal_vector`."""
        return (rows * sums).sum(0)

    def normal_matrix(self, sums: Tensor, rows: Tensor, root: int, order: Sequence[int]) -> Tensor:
        """See :meth:`Tucker.normal_matrix`."""
        return unpack((rows * sums).sum(0), self.num_weights)


def make_structure(name: str, ranks: Sequence[int]) -> Tucker | CP:
    """Structure by name, "tucker" or "cp"."""
    return Tucker(tuple(ranks)) if name == "tucker" else CP(tuple(ranks))


def packed_rows(
    mean: Float[Tensor, "D R"], covariance: Float[Tensor, "D R R"]
) -> Float[Tensor, "D P"]:
    """Packed second moments ``E[u u'] = S + m m'`` of the rows of one mode."""
    return pack(covariance + mean[:, :, None] * mean[:, None, :])


def _unfold(core: Tensor, root: int, order: Sequence[int]) -> Tensor:
    return core.permute(root, *order).reshape(core.shape[root], -1)


def _refold(matrix: Tensor, shape: Sequence[int], root: int, order: Sequence[int]) -> Tensor:
    axes = [root, *order]
    inverse = [axes.index(k) for k in range(len(axes))]
    return matrix.reshape(*shape).permute(inverse)
