"""Kronecker sums solved by fast diagonalisation: Laplacian-like operators on grids.

    K = A_1 (x) I (x) I + I (x) A_2 (x) I + ... + c I,   A_k = V_k diag(a_k) V_k^-1

    K^-1 R = V_1 .. V_d [ (V_1^-1 .. V_d^-1 R) / (a_1 (+) a_2 (+) ... + c) ]

Factors need not be symmetric. Cost: sum n_k^3 once, then N sum n_k a solve; K is never formed.
Source: Lynch, Rice & Thomas, Numer. Math. 6 (1964).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import NumericalError, message

__all__ = ["KroneckerSum", "mode_product"]

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
        if condition * _SINGULAR > 1:
            raise NumericalError(
                message(
                    "The operator is singular",
                    got=f"condition number about {condition:.2g}",
                    causes=("a resonance: the shift is minus an eigenvalue", "missing conditions"),
                    remedy="change the zeroth-order coefficient or add conditions",
                )
            )
        return total
