"""The last blocks of a cyclic reduction, factorised as one dense matrix.

Below some tens of rows a level of the reduction costs as many calls as a large one and saves no
arithmetic worth having, so the recursion ends in an ordinary Cholesky factor. Columns keep the
layout of ``small``: ``(n, k, *batch, T)`` for T blocks of size n.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["DenseRoot", "dense_root"]


class DenseRoot(NamedTuple):
    """Cholesky factor ``L`` of the remaining blocks, ``(*batch, T n, T n)``."""

    factor: Tensor
    block_size: int

    def log_pivots(self) -> Float[Tensor, "n *batch T"]:
        """Logarithms of the diagonal of ``L``; not finite where the matrix is not positive."""
        pivots = torch.diagonal(self.factor, dim1=-2, dim2=-1).unsqueeze(-1)
        return self._unstack(torch.log(pivots))[:, 0]

    def solve_lower(self, b: Float[Tensor, "n k *batch T"]) -> Float[Tensor, "n k *batch T"]:
        """``L^-1 b``."""
        solved = torch.linalg.solve_triangular(self.factor, self._stack(b), upper=False)
        return self._unstack(solved)

    def solve_upper(self, b: Float[Tensor, "n k *batch T"]) -> Float[Tensor, "n k *batch T"]:
        """``L^-T b``."""
        solved = torch.linalg.solve_triangular(self.factor.mT, self._stack(b), upper=True)
        return self._unstack(solved)

    def multiply(self, b: Float[Tensor, "n k *batch T"]) -> Float[Tensor, "n k *batch T"]:
        """``L b``."""
        return self._unstack(self.factor @ self._stack(b))

    def selected_inverse(self) -> tuple[Tensor, Tensor]:
        """Blocks of the inverse on and below the diagonal, ``(n, n, *batch, T)`` and T - 1."""
        n = self.block_size
        inverse = torch.cholesky_inverse(self.factor)
        num_blocks = inverse.shape[-1] // n
        blocks = inverse.reshape(*inverse.shape[:-2], num_blocks, n, num_blocks, n)
        diagonal = torch.diagonal(blocks, dim1=-4, dim2=-2)  # (*batch, n, n, T)
        lower = torch.diagonal(blocks, offset=-1, dim1=-4, dim2=-2)
        return diagonal.movedim((-3, -2), (0, 1)), lower.movedim((-3, -2), (0, 1))

    def _stack(self, b: Tensor) -> Tensor:
        moved = b.movedim((-1, 0, 1), (-3, -2, -1))
        return moved.reshape(*moved.shape[:-3], -1, b.shape[1])

    def _unstack(self, x: Tensor) -> Tensor:
        blocks = x.reshape(*x.shape[:-2], -1, self.block_size, x.shape[-1])
        return blocks.movedim((-3, -2, -1), (-1, 0, 1))


def dense_root(
    diagonal: Float[Tensor, "n n *batch T"], lower: Float[Tensor, "n n *batch T-1"]
) -> DenseRoot:
    """Factorise a short block-tridiagonal matrix.

    Example:
        >>> root = dense_root(2 * torch.ones(1, 1, 2), -torch.ones(1, 1, 1))
        >>> round(float(root.log_pivots().sum().exp().square()), 4)
        3.0
    """
    n, num_blocks = diagonal.shape[0], diagonal.shape[-1]
    batch = diagonal.shape[2:-1]
    whole = diagonal.new_zeros(*batch, num_blocks, n, num_blocks, n)
    index = torch.arange(num_blocks, device=diagonal.device)
    whole[..., index, :, index, :] = diagonal.movedim((-1, 0, 1), (0, -2, -1))
    # both triangles, since the gradient of a Cholesky factor is shared between them
    whole[..., index[1:], :, index[:-1], :] = lower.movedim((-1, 0, 1), (0, -2, -1))
    whole[..., index[:-1], :, index[1:], :] = lower.movedim((-1, 0, 1), (0, -1, -2))
    size = num_blocks * n
    factor, info = torch.linalg.cholesky_ex(whole.reshape(*batch, size, size))
    return DenseRoot(torch.where((info > 0)[..., None, None], torch.nan, factor), n)
