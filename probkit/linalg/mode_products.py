"""Products of a Kronecker product with a vector, one mode of a tensor at a time.

With X the tensor of shape (n_1, ..., n_I) whose entries in C order are the vector x (the last index
runs fastest, as in ``torch.kron``),

    (A_1 x ... x A_I) x = X x_1 A_1 ... x_I A_I,

so that the matrix of prod m_k rows and prod n_k columns is never formed. The modes that shrink the
tensor most go first. Cost: sum over modes of (entries before) * m_k.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

__all__ = ["contract_all_but", "mode_products", "outer"]


def mode_products(x: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Multiply each of the last modes of ``x`` by its matrix.

    Args:
        x: (*batch, *columns, n_1, ..., n_I).
        matrices: I of them, each (*batch, m_k, n_k); all have the same batch dimensions, which are
            the leading ones of ``x``.

    Returns:
        (*batch, *columns, m_1, ..., m_I).

    Example:
        >>> import torch
        >>> a, b, x = torch.randn(2, 3), torch.randn(4, 5), torch.randn(3, 5)
        >>> torch.allclose(mode_products(x, [a, b]), a @ x @ b.mT, atol=1e-5)
        True
    """
    order = sorted(
        range(len(matrices)), key=lambda k: matrices[k].shape[-2] / matrices[k].shape[-1]
    )
    for k in order:
        x = _one_mode(x, matrices[k], len(matrices) - k)
    return x


def outer(vectors: Sequence[Tensor]) -> Tensor:
    """(*batch, n_1, ..., n_I): products of the entries of vectors (*batch, n_k).

    Example:
        >>> import torch
        >>> outer([torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])]).tolist()
        [[3.0, 4.0], [6.0, 8.0]]
    """
    out = vectors[0]
    batch = out.dim() - 1
    for vector in vectors[1:]:
        ones = [1] * (out.dim() - batch)
        out = out.unsqueeze(-1) * vector.reshape(*vector.shape[:batch], *ones, -1)
    return out


def contract_all_but(grid: Tensor, vectors: Sequence[Tensor], keep: int) -> Tensor:
    """Sum a grid against one vector a mode, all modes but one: (*batch, n_keep).

    Args:
        grid: (*batch, n_1, ..., n_I).
        vectors: (*batch, n_k) each; that of mode ``keep`` is not used.
        keep: the mode that stays.

    Example:
        >>> import torch
        >>> grid = torch.arange(6.0).reshape(2, 3)
        >>> contract_all_but(grid, [torch.ones(2), torch.ones(3)], 0).tolist()
        [3.0, 12.0]
    """
    batch = vectors[0].shape[:-1]
    sizes = grid.shape[len(batch) :]
    for k in range(len(vectors) - 1, keep, -1):  # the last mode first: contiguous products
        grid = (grid.reshape(*batch, -1, sizes[k]) @ vectors[k].unsqueeze(-1)).squeeze(-1)
    for k in range(keep):
        rest = math.prod(sizes[k + 1 : keep + 1])
        grid = (vectors[k].unsqueeze(-2) @ grid.reshape(*batch, sizes[k], rest)).squeeze(-2)
    return grid.reshape(*batch, sizes[keep])


def _one_mode(x: Tensor, matrix: Tensor, from_end: int) -> Tensor:
    """Product along the mode that is ``from_end`` from the end."""
    num_batch = matrix.dim() - 2
    batch, before = x.shape[:num_batch], x.shape[num_batch : x.dim() - from_end]
    size, after = x.shape[-from_end], x.shape[x.dim() - from_end + 1 :]
    num_before, num_after = math.prod(before), math.prod(after)
    if num_after == 1:
        out = x.reshape(*batch, num_before, size) @ matrix.mT
    elif num_before == 1:
        out = matrix @ x.reshape(*batch, size, num_after)
    else:
        out = matrix.unsqueeze(-3) @ x.reshape(*batch, num_before, size, num_after)
    return out.reshape(*batch, *before, matrix.shape[-2], *after)
