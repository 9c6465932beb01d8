"""Covariances of partly observed grids: rows of a Kronecker matrix plus noise, solved iteratively.

    C = R (K_1 x ... x K_I + v I) R',  R picks the observed entries of the grid

has no Kronecker eigenbasis, so it is solved by conjugate gradients with the full grid's exact
inverse, restricted to the observed entries, as preconditioner. The residual is recomputed from the
definition at the end and must meet the tolerance. Cost: two mode products a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from probkit.errors import NumericalError, ShapeError, message
from probkit.linalg.kronecker import KroneckerLinearOperator
from probkit.linalg.mode_products import mode_products

__all__ = ["MaskedKronecker", "MaskedSolution"]


class MaskedSolution(NamedTuple):
    """``value`` with its relative residual, recomputed, and the number of steps."""

    value: Tensor
    residual: float
    num_steps: int


class MaskedKronecker:
    """The covariance of the observed entries of a grid.

    Args:
        factors: Hermitian positive semidefinite matrices (n_k, n_k).
        noise: v > 0.
        mask: (n_1, ..., n_I), True where observed.

    Raises:
        ShapeError: the mask is not of the grid's shape, or nothing is observed.

    Example:
        >>> eye = torch.eye(2, dtype=torch.float64)
        >>> mask = torch.tensor([[True, False], [True, True]])
        >>> C = MaskedKronecker([eye, eye], torch.tensor(1.0).double(), mask)
        >>> C.solve(torch.tensor([2.0, 4.0, 6.0]).double()).value.tolist()
        [1.0, 2.0, 3.0]
    """

    def __init__(self, factors: Sequence[Tensor], noise: Tensor, mask: Tensor) -> None:
        sizes = tuple(f.shape[-1] for f in factors)
        if tuple(mask.shape) != sizes or not bool(mask.any()):
            raise ShapeError(
                message(
                    "The mask must mark observed entries of the grid",
                    where="mask",
                    got=f"{tuple(mask.shape)}, {int(mask.sum())} observed",
                    expected=sizes,
                )
            )
        self.factors, self.noise, self.mask = list(factors), noise, mask
        self._whole = KroneckerLinearOperator(*factors).add_constant_diagonal(noise)

    def matmul(self, x: Tensor) -> Tensor:
        """``C x`` for the observed entries x (num_observed,)."""
        return mode_products(self._spread(x), self.factors)[self.mask] + self.noise * x

    def solve(
        self, rhs: Tensor, *, tolerance: float = 1e-10, max_steps: int = 1000
    ) -> MaskedSolution:
        """``C^-1 rhs``, (num_observed,).

        Args:
            tolerance: of the relative residual.
            max_steps: limit.

        Raises:
            NumericalError: the recomputed residual is above the tolerance.
        """
        x, r = torch.zeros_like(rhs), rhs
        z = self._precondition(r)
        p, steps = z, 0
        inner, size = _dot(r, z), float(rhs.norm())
        while steps < max_steps and float(r.norm()) > 0.5 * tolerance * size:
            image = self.matmul(p)
            step = inner / _dot(p, image)
            x, r = x + step * p, r - step * image
            z = self._precondition(r)
            new = _dot(r, z)
            p, inner, steps = z + (new / inner) * p, new, steps + 1
        residual = float((rhs - self.matmul(x)).norm()) / size if size else 0.0
        if not residual <= tolerance:
            raise NumericalError(
                message(
                    "Conjugate gradients did not reach the tolerance",
                    where="MaskedKronecker.solve",
                    got=f"relative residual {residual:.2g} after {steps} steps",
                    expected=f"<= {tolerance:.2g}",
                    remedy="allow more steps, a larger tolerance, or more noise",
                )
            )
        return MaskedSolution(x, residual, steps)

    def _precondition(self, r: Tensor) -> Tensor:
        solved = self._whole.solve(self._spread(r).flatten())
        return solved.reshape(self.mask.shape)[self.mask]

    def _spread(self, x: Tensor) -> Tensor:
        grid = x.new_zeros(self.mask.shape)
        grid[self.mask] = x
        return grid


def _dot(a: Tensor, b: Tensor) -> float:
    return float(torch.vdot(a, b).real if a.is_complex() else a @ b)
