"""Kronecker sums solved by fast diagonalisation: Laplacian-like operators on grids.

    K = A_1 (x) I (x) I + I (x) A_2 (x) I + ... + c I,   A_k = V_k diag(a_k) V_k^-1

    K^-1 R = V_1 .. V_d [ (V_1^-1 .. V_d^-1 R) / (a_1 (+) a_2 (+) ... + c) ]

Factors need not be symmetric. Cost: sum n_k^3 once, then N sum n_k a solve; K is never formed.
Source: Lynch, Rice & Thomas, Numer. Math. 6 (1964).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from linear_operator import LinearOperator
from torch import Tensor

from probkit.errors import NumericalError, message

__all__ = ["KroneckerSum", "KroneckerSumLinearOperator", "mode_product"]

_SINGULAR = 1e-14


def mode_product(factors: Sequence[Tensor], value: Tensor) -> Tensor:
    """Multiply every dimension of ``value`` by its factor: value x_1 F_1 x_2 F_2 ..."""
    for k, factor in enumerate(factors):
        value = torch.tensordot(factor, value, dims=([1], [k])).movedim(0, k)
    return value


class KroneckerSum:
    """A sum of square factors, each acting on one dimension of a tensor.

    Args:
        factors: A_k, real, any number.

    Example:
        >>> one = torch.diag(torch.tensor([1.0, 3.0], dtype=torch.float64))
        >>> KroneckerSum([one, one]).solve(torch.full((2, 2), 12.0, dtype=torch.float64)).tolist()
        [[6.0, 3.0], [3.0, 2.0]]
    """

    def __init__(self, factors: Sequence[Float[Tensor, "n_k n_k"]]) -> None:
        self.factors = list(factors)
        parts = [torch.linalg.eig(factor) for factor in factors]
        self._values = [values for values, _ in parts]
        self._vectors = [vectors for _, vectors in parts]
        self._inverses = [torch.linalg.inv(vectors) for vectors in self._vectors]
        total = self._values[0]
        for values in self._values[1:]:
            total = total[..., None] + values
        self.eigenvalues = total

    def matmul(self, value: Float[Tensor, "*sizes"]) -> Float[Tensor, "*sizes"]:
        """K times a tensor (without a shift)."""
        found = torch.zeros_like(value)
        for k, factor in enumerate(self.factors):
            found = found + torch.tensordot(factor, value, dims=([1], [k])).movedim(0, k)
        return found

    def solve(self, rhs: Float[Tensor, "*sizes"], shift: float = 0.0) -> Float[Tensor, "*sizes"]:
        """(K + shift I)^-1 times a tensor.

        Raises:
            NumericalError: the shifted sum is singular.
        """
        total = self._nonsingular(shift)
        inner = mode_product(self._inverses, rhs.to(total.dtype)) / total
        return mode_product(self._vectors, inner).real

    def solve_transposed(
        self, rhs: Float[Tensor, "*sizes"], shift: float = 0.0
    ) -> Float[Tensor, "*sizes"]:
        """(K' + shift I)^-1 times a tensor.

        Raises:
            NumericalError: the shifted sum is singular.
        """
        total = self._nonsingular(shift)
        inner = mode_product([v.mT for v in self._vectors], rhs.to(total.dtype)) / total
        return mode_product([v.mT for v in self._inverses], inner).real

    def logdet(self, shift: float = 0.0) -> float:
        """log abs det(K + shift I)."""
        return float((self.eigenvalues + shift).abs().log().sum())

    def _nonsingular(self, shift: float) -> Tensor:
        total = self.eigenvalues + shift
        size = total.abs()
        condition = float(size.max() / size.min().clamp(min=1e-300))
        if not size.min() > _SINGULAR * size.max():
            raise NumericalError(
                message(
                    "The operator is singular",
                    got=f"condition number about {condition:.2g}",
                    causes=("a resonance: the shift is minus an eigenvalue", "missing conditions"),
                    remedy="change the zeroth-order coefficient or add conditions",
                )
            )
        return total


class KroneckerSumLinearOperator(LinearOperator):
    """The sum of symmetric positive-definite factors, each on one axis, as a linear operator.

    Upstream's sum of Kronecker products knows two terms, and falls back on conjugate gradients
    beyond; here any number of terms has exact solve, log-determinant, root and samples.

    Args:
        factors: (*batch, n_k, n_k), symmetric, the first the slowest axis; a common batch shape.

    Example:
        >>> one = torch.diag(torch.tensor([1.0, 3.0], dtype=torch.float64))
        >>> operator = KroneckerSumLinearOperator(one, one)
        >>> operator.to_dense().diagonal().tolist(), round(float(operator.logdet().exp()), 6)
        ([2.0, 4.0, 4.0, 6.0], 192.0)
    """

    def __init__(self, *factors: Float[Tensor, "*batch n n"]) -> None:
        super().__init__(*factors)
        self.factors = factors

    def _decompose(self) -> tuple[Tensor, list[Tensor]]:
        """Eigenvalues of the sum, flat, and eigenvectors of the factors."""
        parts = [torch.linalg.eigh(f) for f in self.factors]
        total = parts[0][0]
        for values, _ in parts[1:]:
            total = (total[..., None] + values[..., None, :]).flatten(-2)
        return total, [vectors for _, vectors in parts]

    def _matmul(self, rhs: Tensor) -> Tensor:
        vector = rhs.dim() == 1
        rhs = rhs[:, None] if vector else rhs
        total = torch.zeros((), dtype=rhs.dtype, device=rhs.device)
        for k in range(len(self.factors)):
            total = total + _apply(self.factors, rhs, only=k)
        return total[..., 0] if vector else total

    def _size(self) -> torch.Size:
        batch = torch.broadcast_shapes(*(f.shape[:-2] for f in self.factors))
        size = torch.Size([f.shape[-1] for f in self.factors]).numel()
        return torch.Size([*batch, size, size])

    def _transpose_nonbatch(self) -> KroneckerSumLinearOperator:
        return type(self)(*(f.mT for f in self.factors))

    def _diagonal(self) -> Tensor:
        total = self.factors[0].diagonal(dim1=-2, dim2=-1)
        for factor in self.factors[1:]:
            own = factor.diagonal(dim1=-2, dim2=-1)
            total = (total[..., None] + own[..., None, :]).flatten(-2)
        return total

    def _expand_batch(self, batch_shape: torch.Size) -> KroneckerSumLinearOperator:
        return type(self)(*(f.expand(*batch_shape, *f.shape[-2:]) for f in self.factors))

    def solve(self, right_tensor: Tensor, left_tensor: Tensor | None = None) -> Tensor:
        """``K^-1 right``, or ``left K^-1 right``."""
        vector = right_tensor.dim() == 1
        found = self._solve(right_tensor[:, None] if vector else right_tensor)
        found = found if left_tensor is None else left_tensor @ found
        return found[..., 0] if vector else found

    def _solve(
        self,
        rhs: Tensor,
        preconditioner: Callable[[Tensor], Tensor] | None = None,
        num_tridiag: int | None = 0,
    ) -> Tensor:
        if num_tridiag:
            found: Tensor = super()._solve(rhs, preconditioner, num_tridiag=num_tridiag)
            return found
        values, vectors = self._decompose()
        inner = _apply([v.mT for v in vectors], rhs) / values[..., None]
        return _apply(vectors, inner)

    def logdet(self) -> Tensor:
        """``log det K``, exact."""
        return self._decompose()[0].log().sum(-1)

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
            vector = inv_quad_rhs.dim() == 1
            rhs = inv_quad_rhs[:, None] if vector else inv_quad_rhs
            columns = (rhs * self._solve(rhs)).sum(-2)
            quadratic = columns.sum(-1) if reduce_inv_quad or vector else columns
        return quadratic, self.logdet() if logdet else empty

    def sqrt_matmul(self, rhs: Float[Tensor, "*batch n k"]) -> Float[Tensor, "*batch n k"]:
        """The symmetric square root of K times ``rhs``."""
        values, vectors = self._decompose()
        inner = _apply([v.mT for v in vectors], rhs) * values.sqrt()[..., None]
        return _apply(vectors, inner)

    def zero_mean_mvn_samples(
        self, num_samples: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "num_samples *batch n"]:
        """Samples of N(0, K)."""
        shape = (*self.shape[:-1], num_samples)
        noise = torch.randn(shape, generator=generator, dtype=self.dtype, device=self.device)
        return self.sqrt_matmul(noise).movedim(-1, 0)


def _apply(
    factors: Sequence[Tensor], value: Float[Tensor, "*batch n k"], only: int | None = None
) -> Float[Tensor, "*batch n k"]:
    """The Kronecker product of square factors times columns; of one factor alone if ``only``."""
    sizes = [f.shape[-1] for f in factors]
    batch = torch.broadcast_shapes(value.shape[:-2], *(f.shape[:-2] for f in factors))
    columns = value.shape[-1]
    value = value.expand(*batch, *value.shape[-2:])
    for k, factor in enumerate(factors):
        if only is not None and k != only:
            continue
        before = torch.Size(sizes[:k]).numel()
        after = torch.Size(sizes[k + 1 :]).numel() * columns
        blocks = value.reshape(*batch, before, sizes[k], after)
        value = (factor[..., None, :, :] @ blocks).reshape(*batch, -1, columns)
    return value
