"""Products of a Kronecker product with a vector, one mode of a tensor at a time.

With X the tensor of shape (n_1, ..., n_I) whose entries in C order are the vector x (the last index
runs fastest, as in ``torch.kron``),

    (A_1 x ... x A_I) x = X x_1 A_1 ... x_I A_I,

so that the matrix of prod m_k rows and prod n_k columns is never formed. The modes that shrink the
tensor most go first. Cost: sum over modes of (entries before) * m_k.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

__all__ = ["contract_all_but", "contract_in_turn", "mode_products", "outer"]


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


def contract_in_turn(
    grids: Sequence[Tensor],
    vectors: Sequence[list[Tensor]],
    update: Callable[[int, list[Tensor]], None],
) -> None:
    """One sweep over the modes, each contraction with what the modes before it have become.

    The same as ``update(k, [contract_all_but(g, v, k) for g, v in zip(grids, vectors)])`` for one k
    after the other, but the grids are read twice and not once a mode: halves of the modes share
    what is contracted over the other half, and so on.

    Args:
        grids: (*batch, n_1, ..., n_I) each.
        vectors: for every grid I vectors (*batch, n_k).
        update: called with k and the contractions (*batch, n_k); may replace ``vectors[...][k]``.

    Example:
        >>> import torch
        >>> grid, vectors = torch.arange(6.0).reshape(2, 3), [torch.ones(2), torch.ones(3)]
        >>> def update(k, found):
        ...     vectors[k] = found[0]
        >>> contract_in_turn([grid], [vectors], update)
        >>> vectors[0].tolist(), vectors[1].tolist()
        ([3.0, 12.0], [36.0, 51.0, 66.0])
    """
    num_modes, batch = len(vectors[0]), vectors[0][0].shape[:-1]

    def visit(parts: Sequence[Tensor], low: int, high: int) -> None:
        if high - low == 1:
            update(low, list(parts))
            return
        middle = (low + high) // 2
        sizes = parts[0].shape[len(batch) :]
        first, second = sizes[: middle - low], sizes[middle - low :]
        folded = [p.reshape(*batch, math.prod(first), math.prod(second)) for p in parts]
        ends = [outer(v[middle:high]).reshape(*batch, -1, 1) for v in vectors]
        left = [(p @ e).reshape(*batch, *first) for p, e in zip(folded, ends, strict=True)]
        visit(left, low, middle)
        ends = [outer(v[low:middle]).reshape(*batch, 1, -1) for v in vectors]
        right = [(e @ p).reshape(*batch, *second) for p, e in zip(folded, ends, strict=True)]
        visit(right, middle, high)

    visit(grids, 0, num_modes)


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
