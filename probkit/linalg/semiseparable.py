"""Symmetric matrices that are sums of J decaying exponentials: products and solves in linear time.

    K_ij = d_i                                              i = j
         = sum_k U_ik exp(c_ik - c_jk) V_jk                 i > j,   c_k falling with i,

c the cumulated logarithms of decays, so that only differences below zero are exponentiated. Such
are covariances of sums of Ornstein-Uhlenbeck processes with one noise; static parts do not decay.
Rows are taken b at a time. With E_i the decay from the end of the block before to row i, F that
over the whole block, S a J x J state and G = V' (decayed to the end of the block) - F S (U E)',

    A = K_II - (U E) S (U E)',    S <- F S F + G A^-1 G',    log det K = sum log det A,

and a solve carries J numbers a column forwards and backwards, all in differentiable torch.
Cost: N (b^2 + b J + J^2) for a factorisation, N (b + J) a column; N / b steps of Python.
Source: Foreman-Mackey, Agol, Ambikasaran & Angus, AJ 154 (2017), celerite, row by row; the blocks
are block elimination of the same recursion.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from linear_operator.operators import DiagLinearOperator, LinearOperator
from torch import Tensor

from probkit.errors import NotPositiveDefiniteError, ShapeError, message
from probkit.linalg.vector_sides import solve_sides

__all__ = ["SemiseparableLinearOperator"]

_ROWS = 64


class SemiseparableLinearOperator(LinearOperator):
    """A symmetric matrix of J decaying exponentials and a diagonal.

    Args:
        left: U, (*batch, N, J).
        right: V, (*batch, N, J).
        log_decay: logarithm of the decay from row i - 1 to row i, <= 0, (*batch, N, J); that of the
            first row is not used.
        diagonal: d, (*batch, N).

    Raises:
        ShapeError: parts that do not fit.

    Example:
        >>> t = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
        >>> gaps = torch.cat([t[:1], t.diff()])[:, None]
        >>> ones = torch.ones(3, 1, dtype=torch.float64)
        >>> K = SemiseparableLinearOperator(ones, ones, -gaps, 2 * ones[:, 0])
        >>> bool(torch.allclose(K.to_dense(), torch.exp(-(t[:, None] - t).abs()) + torch.eye(3)))
        True
    """

    def __init__(self, left: Tensor, right: Tensor, log_decay: Tensor, diagonal: Tensor) -> None:
        shapes = [tuple(x.shape) for x in (left, right, log_decay)]
        if len(set(shapes)) > 1 or left.dim() < 2 or tuple(diagonal.shape) != shapes[0][:-1]:
            raise ShapeError(
                message(
                    "The parts of a semiseparable matrix do not fit",
                    where="left, right, log_decay, diagonal",
                    got=[*shapes, tuple(diagonal.shape)],
                    expected="(*batch, N, J) three times and (*batch, N)",
                )
            )
        super().__init__(left, right, log_decay, diagonal)
        self.left, self.right, self.log_decay = left, right, log_decay
        self.diagonal_part = diagonal

    def add_diagonal(self, diag: Tensor) -> SemiseparableLinearOperator:
        """K plus a diagonal (*batch, N), (1,) or a number."""
        return self.__class__(
            self.left, self.right, self.log_decay, self.diagonal_part + diag.expand(self.shape[:-1])
        )

    def __add__(self, other: Any) -> LinearOperator:
        if isinstance(other, DiagLinearOperator):
            return self.add_diagonal(other._diagonal())
        return super().__add__(other)

    def _mul_constant(self, other: float | Tensor) -> SemiseparableLinearOperator:
        """A constant times K, or one for each matrix of a batch: of the same structure."""
        factor = torch.as_tensor(other, dtype=self.dtype, device=self.device)
        batch = torch.broadcast_shapes(self.batch_shape, factor.shape)
        whole = self if batch == self.batch_shape else self._expand_batch(batch)
        return self.__class__(
            whole.left * factor[..., None, None],
            whole.right,
            whole.log_decay,
            whole.diagonal_part * factor[..., None],
        )

    def solve(self, right_tensor: Tensor, left_tensor: Tensor | None = None) -> Tensor:
        """``K^-1 right``, or ``left K^-1 right``.

        Raises:
            NotPositiveDefiniteError: K is not positive definite.
        """
        return solve_sides(self._solve, right_tensor, left_tensor)

    def logdet(self) -> Float[Tensor, "*batch"]:
        """log det K."""
        parts = [_logdet(step.root) for step in self._factors()]
        return torch.stack(parts).sum(0)

    def inv_quad_logdet(
        self,
        inv_quad_rhs: Tensor | None = None,
        logdet: bool | None = False,
        reduce_inv_quad: bool | None = True,
    ) -> tuple[Tensor, Tensor]:
        """``rhs' K^-1 rhs`` and the log-determinant; empty tensors for what was not asked."""
        empty = torch.zeros(0, dtype=self.dtype, device=self.device)
        factors = self._factors()
        quadratic = empty
        if inv_quad_rhs is not None:
            is_vector = inv_quad_rhs.dim() == 1
            rhs = inv_quad_rhs.unsqueeze(-1) if is_vector else inv_quad_rhs
            columns = (rhs * self._solve_with(factors, rhs)).sum(-2)
            quadratic = columns.sum(-1) if reduce_inv_quad or is_vector else columns
        found = torch.stack([_logdet(step.root) for step in factors]).sum(0) if logdet else empty
        return quadratic, found

    def zero_mean_mvn_samples(
        self, num_samples: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """(num_samples, *batch, N) draws of N(0, K)."""
        shape = (*self.batch_shape, self.shape[-1], num_samples)
        noise = torch.randn(shape, generator=generator, dtype=self.dtype, device=self.device)
        carried = noise.new_zeros(*self.batch_shape, self.left.shape[-1], num_samples)
        parts = []
        for step, some in zip(self._factors(), noise.split(_ROWS, -2), strict=True):
            parts.append(step.root @ some + step.block.entering @ carried)
            whole = torch.linalg.solve_triangular(step.root.mT, some, upper=True)
            carried = step.block.whole.unsqueeze(-1) * carried + step.gain @ whole
        return torch.cat(parts, -2).movedim(-1, 0)

    def _blocks(self) -> list[_Block]:
        cumulated = self.log_decay.cumsum(-2)
        before = cumulated[..., :1, :]
        blocks = []
        size = self.shape[-1]
        for first in range(0, size, _ROWS):
            rows = slice(first, min(first + _ROWS, size))
            blocks.append(self._block(rows, cumulated[..., rows, :], before))
            before = cumulated[..., rows.stop - 1 : rows.stop, :]
        return blocks

    def _block(self, rows: slice, c: Tensor, before: Tensor) -> _Block:
        U, V, d = self.left[..., rows, :], self.right[..., rows, :], self.diagonal_part[..., rows]
        last = c[..., -1:, :]
        lag = (c.unsqueeze(-2) - c.unsqueeze(-3)).clamp(max=0)  # above the diagonal: not used
        lower = (U.unsqueeze(-2) * V.unsqueeze(-3) * lag.exp()).sum(-1).tril(-1)
        dense = lower + lower.mT + torch.diag_embed(d)
        return _Block(
            dense,
            U * (c - before).exp(),
            V * (last - c).exp(),
            (last - before).exp().squeeze(-2),
        )

    def _factors(self) -> list[_Factor]:
        factors: list[_Factor] = []
        state = self.left.new_zeros(*self.batch_shape, *2 * [self.left.shape[-1]])
        for block in self._blocks():
            pulled = block.entering @ state
            root, info = torch.linalg.cholesky_ex(block.dense - pulled @ block.entering.mT)
            if bool((info > 0).any()):
                raise NotPositiveDefiniteError(
                    message(
                        "The semiseparable matrix is not positive definite",
                        got=f"a pivot that is not positive in block {len(factors)}",
                        remedy="add noise, or use float64",
                    )
                )
            whole = block.whole.unsqueeze(-1)
            gain = block.leaving.mT - whole * pulled.mT
            factors.append(_Factor(block, root, gain))
            half = torch.linalg.solve_triangular(root, gain.mT, upper=False)
            state = whole * state * whole.mT + half.mT @ half
        return factors

    def _solve_with(self, factors: list[_Factor], rhs: Tensor) -> Tensor:
        batch = torch.broadcast_shapes(self.batch_shape, rhs.shape[:-2])
        rhs = rhs.expand(*batch, *rhs.shape[-2:])
        carried = rhs.new_zeros(*batch, self.left.shape[-1], rhs.shape[-1])
        forward = []
        for step, y in zip(factors, rhs.split(_ROWS, -2), strict=True):
            q = torch.cholesky_solve(y - step.block.entering @ carried, step.root)
            carried = step.block.whole.unsqueeze(-1) * carried + step.gain @ q
            forward.append(q)
        carried = torch.zeros_like(carried)
        found = []
        for step, q in zip(reversed(factors), reversed(forward), strict=True):
            x = q - torch.cholesky_solve(step.gain.mT @ carried, step.root)
            carried = step.block.whole.unsqueeze(-1) * carried + step.block.entering.mT @ x
            found.append(x)
        return torch.cat(found[::-1], -2)

    def _solve(
        self,
        rhs: Tensor,
        preconditioner: Callable[[Tensor], Tensor] | None = None,
        num_tridiag: int | None = 0,
    ) -> Tensor:
        if num_tridiag:
            solution: Tensor = super()._solve(rhs, preconditioner, num_tridiag=num_tridiag)
            return solution
        return self._solve_with(self._factors(), rhs)

    def _matmul(self, rhs: Tensor) -> Tensor:
        if rhs.dim() == 1:
            return self._matmul(rhs.unsqueeze(-1)).squeeze(-1)
        batch = torch.broadcast_shapes(self.batch_shape, rhs.shape[:-2])
        parts = rhs.expand(*batch, *rhs.shape[-2:]).split(_ROWS, -2)
        blocks = self._blocks()
        carried = rhs.new_zeros(*batch, self.left.shape[-1], rhs.shape[-1])
        below = []
        for block, x in zip(blocks, parts, strict=True):
            below.append(block.dense @ x + block.entering @ carried)
            carried = block.whole.unsqueeze(-1) * carried + block.leaving.mT @ x
        carried = torch.zeros_like(carried)
        found = []
        for block, x, y in zip(blocks[::-1], parts[::-1], below[::-1], strict=True):
            found.append(y + block.leaving @ carried)
            carried = block.whole.unsqueeze(-1) * carried + block.entering.mT @ x
        return torch.cat(found[::-1], -2)

    def _size(self) -> torch.Size:
        size = self.diagonal_part.shape[-1]
        return torch.Size((*self.diagonal_part.shape[:-1], size, size))

    def _transpose_nonbatch(self) -> SemiseparableLinearOperator:
        return self

    def _diagonal(self) -> Tensor:
        return self.diagonal_part

    def _expand_batch(self, batch_shape: torch.Size) -> SemiseparableLinearOperator:
        shape = (*batch_shape, *self.left.shape[-2:])
        return self.__class__(
            self.left.expand(shape),
            self.right.expand(shape),
            self.log_decay.expand(shape),
            self.diagonal_part.expand(shape[:-1]),
        )


class _Block(NamedTuple):
    """Rows of a block: their own matrix, U E, V decayed to the block's end, and F."""

    dense: Tensor
    entering: Tensor
    leaving: Tensor
    whole: Tensor


class _Factor(NamedTuple):
    """A block, the Cholesky factor of its Schur complement A, and G (J, b)."""

    block: _Block
    root: Tensor
    gain: Tensor


def _logdet(root: Tensor) -> Tensor:
    return 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
