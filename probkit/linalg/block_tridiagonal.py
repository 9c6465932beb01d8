"""Symmetric block-tridiagonal matrices as linear operators, exact at any size.

Solutions, log-determinants, selected inverse and samples cost ``O(T n^3)`` by cyclic reduction
(:mod:`probkit.linalg.cyclic_reduction`) and are never replaced by an iterative or stochastic
estimate, whatever the settings of ``linear_operator``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from linear_operator.operators import LinearOperator
from torch import Tensor

from probkit.errors import ShapeError, message
from probkit.linalg.cyclic_reduction import CyclicReduction, factorize
from probkit.linalg.log_normalizer import log_normalizer
from probkit.linalg.vector_sides import solve_sides

__all__ = ["BlockTridiagonalLinearOperator"]


class BlockTridiagonalLinearOperator(LinearOperator):
    """The symmetric matrix with blocks ``J[i, i] = diagonal[i]`` and ``J[i+1, i] = lower[i]``.

    Args:
        diagonal: symmetric blocks, ``(*batch, T, n, n)``.
        lower: blocks below the diagonal, ``(*batch, T-1, n, n)``.

    Raises:
        ShapeError: the two do not belong together.
        NotPositiveDefiniteError: from the methods that factorise, if the matrix is indefinite.

    Example:
        >>> J = BlockTridiagonalLinearOperator(2 * torch.ones(3, 1, 1), -torch.ones(2, 1, 1))
        >>> J.to_dense().tolist()
        [[2.0, -1.0, 0.0], [-1.0, 2.0, -1.0], [0.0, -1.0, 2.0]]
        >>> round(float(J.logdet().exp()), 4)
        4.0
    """

    def __init__(
        self, diagonal: Float[Tensor, "*batch T n n"], lower: Float[Tensor, "*batch T-1 n n"]
    ) -> None:
        if diagonal.shape[-1] != diagonal.shape[-2] or lower.shape[-3] != diagonal.shape[-3] - 1:
            raise ShapeError(
                message(
                    "Diagonal and lower blocks do not form a block-tridiagonal matrix",
                    where="lower",
                    got=f"{tuple(lower.shape)} for diagonal {tuple(diagonal.shape)}",
                )
            )
        super().__init__(diagonal, lower)
        self.diagonal_blocks = diagonal
        self.lower_blocks = lower

    def factorize(self) -> CyclicReduction:
        """The cyclic reduction; keep it to use one factorisation several times."""
        diagonal = self.diagonal_blocks
        return factorize(0.5 * (diagonal + diagonal.mT), self.lower_blocks)

    def selected_inverse(self) -> tuple[Tensor, Tensor]:
        """Blocks of the inverse on the diagonal and below it, shaped like the arguments."""
        return self.factorize().selected_inverse()

    def solve(self, right_tensor: Tensor, left_tensor: Tensor | None = None) -> Tensor:
        """``J^-1 right``, or ``left J^-1 right``."""
        return solve_sides(self._solve, right_tensor, left_tensor)

    def logdet(self) -> Float[Tensor, "*batch"]:
        """``log det J``, exact, with the closed-form gradient."""
        diagonal = self.diagonal_blocks
        symmetric = 0.5 * (diagonal + diagonal.mT)
        zero = torch.zeros_like(diagonal[..., 0])
        return -2 * log_normalizer(symmetric, self.lower_blocks, zero)

    def inv_quad(self, inv_quad_rhs: Tensor, reduce_inv_quad: bool = True) -> Tensor:
        """``rhs' J^-1 rhs``, summed over the columns unless ``reduce_inv_quad`` is False."""
        is_vector = inv_quad_rhs.dim() == 1
        rhs = inv_quad_rhs.unsqueeze(-1) if is_vector else inv_quad_rhs
        columns = (rhs * self._solve(rhs)).sum(-2)
        return columns.sum(-1) if reduce_inv_quad or is_vector else columns

    def inv_quad_logdet(
        self,
        inv_quad_rhs: Tensor | None = None,
        logdet: bool | None = False,
        reduce_inv_quad: bool | None = True,
    ) -> tuple[Tensor, Tensor]:
        """Both, exactly; what was not asked for is an empty tensor (upstream's convention)."""
        empty = torch.zeros(0, dtype=self.dtype, device=self.device)
        quadratic = empty
        if inv_quad_rhs is not None:
            quadratic = self.inv_quad(inv_quad_rhs, bool(reduce_inv_quad))
        return quadratic, self.logdet() if logdet else empty

    def zero_mean_mvn_samples(
        self, num_samples: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "num_samples *batch N"]:
        """Samples of ``N(0, J)``, the matrix being the covariance."""
        return self._samples(self.factorize().root_matmul, num_samples, generator)

    def inverse_mvn_samples(
        self, num_samples: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "num_samples *batch N"]:
        """Samples of ``N(0, J^-1)``, the matrix being the precision."""
        return self._samples(self.factorize().sample, num_samples, generator)

    def _samples(
        self,
        transform: Callable[[Tensor], Tensor],
        num_samples: int,
        generator: torch.Generator | None,
    ) -> Tensor:
        shape = (*self.diagonal_blocks.shape[:-1], num_samples)
        noise = torch.randn(shape, generator=generator, dtype=self.dtype, device=self.device)
        return transform(noise).flatten(-3, -2).movedim(-1, 0)

    def _matmul(self, rhs: Tensor) -> Tensor:
        if rhs.dim() == 1:
            return self._matmul(rhs.unsqueeze(-1)).squeeze(-1)
        length, n = self.diagonal_blocks.shape[-3], self.diagonal_blocks.shape[-1]
        x = rhs.unflatten(-2, (length, n))
        out = self.diagonal_blocks @ x
        below = self.lower_blocks @ x[..., :-1, :, :]
        above = self.lower_blocks.mT @ x[..., 1:, :, :]
        nothing = torch.zeros_like(out[..., :1, :, :])
        out = out + torch.cat([nothing, below], -3) + torch.cat([above, nothing], -3)
        return out.flatten(-3, -2)

    def _size(self) -> torch.Size:
        *batch, length, n, _ = self.diagonal_blocks.shape
        return torch.Size((*batch, length * n, length * n))

    def _transpose_nonbatch(self) -> BlockTridiagonalLinearOperator:
        return self.__class__(self.diagonal_blocks.mT, self.lower_blocks)

    def _expand_batch(self, batch_shape: torch.Size) -> BlockTridiagonalLinearOperator:
        parts = (self.diagonal_blocks, self.lower_blocks)
        return self.__class__(*(x.expand(*batch_shape, *x.shape[-3:]) for x in parts))

    def _diagonal(self) -> Float[Tensor, "*batch N"]:
        return self.diagonal_blocks.diagonal(dim1=-2, dim2=-1).flatten(-2)

    def _solve(
        self,
        rhs: Tensor,
        preconditioner: Callable[[Tensor], Tensor] | None = None,
        num_tridiag: int | None = 0,
    ) -> Tensor:
        if num_tridiag:
            solution: Tensor = super()._solve(rhs, preconditioner, num_tridiag=num_tridiag)
            return solution
        batch = torch.broadcast_shapes(self.batch_shape, rhs.shape[:-2])
        whole = self._expand_batch(batch)
        length, n = self.diagonal_blocks.shape[-3], self.diagonal_blocks.shape[-1]
        blocks = rhs.expand(*batch, *rhs.shape[-2:]).unflatten(-2, (length, n))
        return whole.factorize().solve(blocks).flatten(-3, -2)
