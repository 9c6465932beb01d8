"""Toeplitz matrices, symmetric or not, by the fast Fourier transform.

    T_ij = c_(i-j) for i >= j,  r_(j-i) for j > i

embedded in a circulant of twice the size. Odd derivatives of a stationary kernel on an even grid
are such matrices without symmetry, which the symmetric operator upstream would take for even ones.
Cost: N log N a product, N memory. Source: Golub & Van Loan, Matrix Computations, section 4.7.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from linear_operator import LinearOperator
from torch import Tensor

from probkit.errors import ShapeError, message

__all__ = ["GeneralToeplitzLinearOperator"]


class GeneralToeplitzLinearOperator(LinearOperator):
    """A square Toeplitz matrix from its first column and first row.

    Args:
        column: (*batch, n) c, from the diagonal down.
        row: (*batch, n) r, from the diagonal to the right; its first entry is not used. None for a
            symmetric matrix.

    Raises:
        ShapeError: column and row of different sizes.

    Example:
        >>> column, row = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, -2.0, -3.0])
        >>> GeneralToeplitzLinearOperator(column, row).to_dense().tolist()
        [[1.0, -2.0, -3.0], [2.0, 1.0, -2.0], [3.0, 2.0, 1.0]]
    """

    def __init__(
        self, column: Float[Tensor, "*batch n"], row: Float[Tensor, "*batch n"] | None = None
    ) -> None:
        row = column if row is None else row
        if column.shape != row.shape:
            raise ShapeError(
                message(
                    "Column and row of a Toeplitz matrix have one size",
                    where="row",
                    got=tuple(row.shape),
                    expected=tuple(column.shape),
                )
            )
        super().__init__(column, row)
        self.column, self.row = column, row

    def _matmul(self, rhs: Tensor) -> Tensor:
        vector = rhs.dim() == 1
        rhs = rhs[:, None] if vector else rhs
        n = self.column.shape[-1]
        circle = torch.cat([self.column, self.column[..., :1], self.row[..., 1:].flip(-1)], -1)
        spectrum = torch.fft.rfft(circle, dim=-1)[..., None]
        padded = torch.fft.rfft(rhs, n=2 * n, dim=-2)
        found = torch.fft.irfft(spectrum * padded, n=2 * n, dim=-2)[..., :n, :]
        return found[..., 0] if vector else found

    def _transpose_nonbatch(self) -> GeneralToeplitzLinearOperator:
        column = torch.cat([self.column[..., :1], self.row[..., 1:]], -1)
        return type(self)(column, self.column)

    def _size(self) -> torch.Size:
        return torch.Size([*self.column.shape, self.column.shape[-1]])

    def _diagonal(self) -> Tensor:
        return self.column[..., :1].expand(self.column.shape)

    def _get_indices(self, row_index: Tensor, col_index: Tensor, *batch_indices: Tensor) -> Tensor:
        lag = row_index - col_index
        below = self.column[(*batch_indices, lag.clamp(min=0))]
        above = self.row[(*batch_indices, (-lag).clamp(min=0))]
        return torch.where(lag >= 0, below, above)

    def to_dense(self) -> Tensor:
        """The matrix, formed."""
        n = self.column.shape[-1]
        index = torch.arange(n, device=self.column.device)
        lag = index[:, None] - index
        below = self.column[..., lag.clamp(min=0)]
        above = self.row[..., (-lag).clamp(min=0)]
        return torch.where(lag >= 0, below, above)

    def _expand_batch(self, batch_shape: torch.Size) -> LinearOperator:
        if not self.column.shape[:-1] and not batch_shape:
            return self
        shape = (*batch_shape, self.column.shape[-1])
        return type(self)(self.column.expand(shape), self.row.expand(shape))

    def add_jitter(self, jitter_val: float = 1e-3) -> LinearOperator:
        """The matrix plus a multiple of the identity: a Toeplitz matrix again."""
        first = torch.zeros_like(self.column)
        first[..., 0] = jitter_val
        return type(self)(self.column + first, self.row + first)
