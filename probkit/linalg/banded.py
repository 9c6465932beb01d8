"""Block-tridiagonal systems as banded matrices: LAPACK's banded Cholesky, from both ends.

A chain of ``T`` blocks of size ``n`` is a banded matrix with ``2 n - 1`` subdiagonals. Its banded
Cholesky factor gives solutions and the log-determinant in one call each. With ``F_i`` and ``B_i``
the Schur complements of block i in the eliminations from the left and from the right::

    (J^-1)_ii = (F_i + B_i - J_ii)^-1,    (J^-1)_{i+1,i} = - (J^-1)_{i+1,i+1} J_{i+1,i} F_i^-1

so that the selected inverse is a second factorisation, of the chain read backwards, and vector
operations. The difference loses ``log10 max_i ||J_ii|| ||(J^-1)_ii||`` digits; where that is more
than ``-log10 LOSS`` (close neighbours), :func:`chain_factor`'s result goes back to cyclic
reduction for it.

Source: the two-filter form of the selected inverse, e.g. Mayne, Automatica 4 (1966). Cost
O(T n^3), 2 to 4 times less than cyclic reduction on one CPU core; it is sequential, for one matrix
on the CPU, and has no derivatives, so cyclic reduction stays the general route.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.linalg import get_lapack_funcs
from torch import Tensor

from probkit.linalg.cyclic_reduction import CyclicReduction, factorize, raise_not_positive
from probkit.linalg.small import cholesky, from_trailing, matmul, to_trailing

__all__ = ["BandedChain", "chain_factor"]

LOSS = 1e5
"""largest loss of precision in the selected inverse, as a factor on the rounding error"""
_LARGEST_BLOCK = 64


class BandedChain(NamedTuple):
    """Banded Cholesky factor of a chain; made by :func:`chain_factor`."""

    diagonal: Tensor
    lower: Tensor
    band: NDArray[Any]
    """rows: subdiagonals of the factor, LAPACK's lower band storage"""

    def logdet(self) -> Tensor:
        """``log det J``."""
        return 2 * torch.from_numpy(np.log(self.band[0])).sum()

    def solve(self, rhs: Float[Tensor, "T n"]) -> Float[Tensor, "T n"]:
        """``J^-1 rhs``."""
        (solver,) = get_lapack_funcs(("pbtrs",), (self.band,))
        solution, _ = solver(self.band, rhs.detach().reshape(-1, 1).numpy(), lower=1)
        return torch.from_numpy(solution).reshape(rhs.shape)

    def selected_inverse(self) -> tuple[Tensor, Tensor]:
        """Diagonal blocks of ``J^-1`` and the blocks below them, ``Cov(z_{i+1}, z_i)``."""
        backward = _banded_cholesky(self.diagonal.flip(0), self.lower.mT.flip(0))
        diagonal = to_trailing(self.diagonal)
        root, other = self._pivot_root(self.band), self._pivot_root(backward).flip(-1)
        sides = matmul(root, root.transpose(0, 1)) + matmul(other, other.transpose(0, 1))
        blocks = _inverse(sides - diagonal)
        lost = torch.diagonal(blocks).mT * torch.diagonal(diagonal).mT
        if not float(lost.max()) < LOSS:
            return factorize(self.diagonal, self.lower).selected_inverse()
        pivot = _inverse(matmul(root, root.transpose(0, 1))[..., :-1])
        cross = -matmul(matmul(blocks[..., 1:], to_trailing(self.lower)), pivot)
        return from_trailing(blocks), from_trailing(cross)

    def solve_and_selected_inverse(self, rhs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(solve(rhs), *selected_inverse())``: mean, covariances and neighbour covariances."""
        return (self.solve(rhs), *self.selected_inverse())

    def _pivot_root(self, band: NDArray[Any]) -> Float[Tensor, "n n T"]:
        """Diagonal blocks of the factor."""
        n = self.diagonal.shape[-1]
        columns = torch.from_numpy(band.T).reshape(-1, n, 2 * n)
        root = self.diagonal.new_zeros(n, n, columns.shape[0])
        for q in range(n):
            root[q:, q] = columns[:, q, : n - q].mT
        return root


def chain_factor(
    diagonal: Float[Tensor, "*batch T n n"], lower: Float[Tensor, "*batch T-1 n n"]
) -> BandedChain | CyclicReduction:
    """Factor of one chain without derivatives: banded on the CPU, cyclic reduction elsewhere.

    Raises:
        ShapeError: the two do not belong together.
        NotPositiveDefiniteError: the matrix is not positive definite to working precision.

    Example:
        >>> J = chain_factor(2 * torch.ones(3, 1, 1), -torch.ones(2, 1, 1))
        >>> round(float(J.logdet().exp()), 4)
        4.0
        >>> [round(float(v), 4) for v in J.solve(torch.ones(3, 1)).flatten()]
        [1.5, 2.0, 1.5]
    """
    diagonal, lower = diagonal.detach(), lower.detach()
    one = diagonal.dim() == 3 and diagonal.shape[0] > 1 and lower.dim() == 3
    fits = one and diagonal.shape[-1] <= _LARGEST_BLOCK and len(lower) == len(diagonal) - 1
    known = diagonal.dtype in (torch.float32, torch.float64) and lower.dtype == diagonal.dtype
    if not (fits and known and diagonal.device.type == "cpu"):
        return factorize(diagonal, lower)
    band = _banded_cholesky(diagonal, lower)
    if not np.isfinite(band[0]).all():
        raise_not_positive(diagonal, lower)
    return BandedChain(diagonal, lower, band)


def _banded_cholesky(diagonal: Tensor, lower: Tensor) -> NDArray[Any]:
    """Factor in LAPACK's lower band storage (2 n, T n); NaN where it does not exist."""
    length, n = diagonal.shape[:2]
    below = torch.cat([lower, lower.new_zeros(1, n, n)])
    columns = torch.cat([diagonal, below], 1)
    band = diagonal.new_zeros(length, n, 2 * n)
    for q in range(n):
        band[:, q, : 2 * n - q] = columns[:, q:, q]
    storage: NDArray[Any] = band.reshape(length * n, 2 * n).numpy().T
    factorizer: Callable[..., tuple[NDArray[Any], int]]
    (factorizer,) = get_lapack_funcs(("pbtrf",), (storage,))
    factor, info = factorizer(storage, lower=1, overwrite_ab=1)
    return factor if info == 0 else np.full_like(factor, np.nan)


def _inverse(matrices: Float[Tensor, "n n T"]) -> Float[Tensor, "n n T"]:
    n = matrices.shape[0]
    identity = torch.eye(n, dtype=matrices.dtype, device=matrices.device).unsqueeze(-1)
    root = cholesky(matrices).solve_lower(identity.expand_as(matrices))
    return matmul(root.transpose(0, 1), root)
