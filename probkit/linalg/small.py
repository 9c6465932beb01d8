"""Algebra of many small matrices at once, with the batch in the trailing dimensions.

A stack of ``n x n`` matrices is stored as ``(n, n, *batch)``: each scalar operation of the textbook
algorithm is then one contiguous vector operation over the batch, so that a product costs ``n``
calls and a Cholesky factorisation ``O(n^3 / 6)``, whatever the size of the batch. For small ``n``
this is several times faster than a loop of LAPACK calls; above ``LARGEST_SMALL`` the functions
hand over to ``torch.linalg``. Everything is differentiable.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "LARGEST_SMALL",
    "SmallCholesky",
    "cholesky",
    "from_trailing",
    "matmul",
    "matvec",
    "semidefinite_root",
    "semidefinite_roots",
    "to_trailing",
]

LARGEST_SMALL = 8


def to_trailing(x: Float[Tensor, "*batch p q"]) -> Float[Tensor, "p q *batch"]:
    """Move the two matrix dimensions to the front and make the batch contiguous."""
    return x.movedim((-2, -1), (0, 1)).contiguous()


def from_trailing(x: Float[Tensor, "p q *batch"]) -> Float[Tensor, "*batch p q"]:
    """The inverse of :func:`to_trailing`."""
    return x.movedim((0, 1), (-2, -1)).contiguous()


def matmul(a: Float[Tensor, "p q *batch"], b: Float[Tensor, "q r *batch"]) -> Tensor:
    """Matrix product ``a b`` of shape ``(p, r, *batch)``; pass ``x.mT`` as ``x.transpose(0, 1)``.

    Example:
        >>> x = torch.eye(2).unsqueeze(-1).expand(2, 2, 5)
        >>> bool((matmul(x, x) == x).all())
        True
    """
    if a.shape[1] > LARGEST_SMALL:
        return from_leading(as_leading(a) @ as_leading(b))
    columns = a.unsqueeze(2).unbind(1)
    rows = b.unsqueeze(0).unbind(1)
    out = columns[0] * rows[0]
    for column, row in zip(columns[1:], rows[1:], strict=True):
        out = out.addcmul_(column, row)
    return out


def matvec(a: Float[Tensor, "*batch p q"], x: Float[Tensor, "*batch q"]) -> Tensor:
    """``a x`` with the batch in the *leading* dimensions, ``(*batch, p)``.

    Example:
        >>> matvec(2 * torch.eye(2), torch.ones(3, 2)).shape
        torch.Size([3, 2])
    """
    return (a @ x.unsqueeze(-1)).squeeze(-1)


class SmallCholesky(NamedTuple):
    """Lower Cholesky factor ``L`` kept entry by entry (or whole, for large blocks)."""

    entries: tuple[tuple[Tensor, ...], ...]
    inverse_pivots: tuple[Tensor, ...]
    dense: Tensor | None = None

    def log_pivots(self) -> Float[Tensor, "n *batch"]:
        """Logarithms of the diagonal of ``L``; not finite where the matrix is not positive."""
        if self.dense is not None:
            return torch.log(torch.diagonal(self.dense, dim1=-2, dim2=-1)).movedim(-1, 0)
        return torch.log(torch.stack([row[-1] for row in self.entries]))

    def solve_lower(self, b: Float[Tensor, "n k *batch"]) -> Float[Tensor, "n k *batch"]:
        """``L^-1 b``."""
        if self.dense is not None:
            return from_leading(
                torch.linalg.solve_triangular(self.dense, as_leading(b), upper=False)
            )
        solved: list[Tensor] = []
        for i, row in enumerate(b.unbind(0)):
            for j in range(i):
                row = torch.addcmul(row, self.entries[i][j], solved[j], value=-1.0)
            solved.append(row * self.inverse_pivots[i])
        return torch.stack(solved)

    def multiply(self, b: Float[Tensor, "n k *batch"]) -> Float[Tensor, "n k *batch"]:
        """``L b``."""
        if self.dense is not None:
            return from_leading(self.dense @ as_leading(b))
        rows = b.unbind(0)
        out = []
        for row in self.entries:
            total = row[0] * rows[0]
            for entry, other in zip(row[1:], rows[1:], strict=False):
                total = torch.addcmul(total, entry, other)
            out.append(total)
        return torch.stack(out)

    def solve_upper(self, b: Float[Tensor, "n k *batch"]) -> Float[Tensor, "n k *batch"]:
        """``L^-T b``."""
        if self.dense is not None:
            return from_leading(
                torch.linalg.solve_triangular(self.dense.mT, as_leading(b), upper=True)
            )
        n = b.shape[0]
        rows = list(b.unbind(0))
        for i in reversed(range(n)):
            row = rows[i]
            for j in range(i + 1, n):
                row = torch.addcmul(row, self.entries[j][i], rows[j], value=-1.0)
            rows[i] = row * self.inverse_pivots[i]
        return torch.stack(rows)


def cholesky(a: Float[Tensor, "n n *batch"]) -> SmallCholesky:
    """Cholesky factor of symmetric matrices, of which the lower triangle is read.

    A matrix that is not positive definite gives non-finite pivots, never an exception here: the
    caller knows which block it was and can say so.
    """
    n = a.shape[0]
    if n > LARGEST_SMALL:
        factor, info = torch.linalg.cholesky_ex(as_leading(a))
        factor = torch.where((info > 0)[..., None, None], torch.nan, factor)
        return SmallCholesky((), (), factor)
    entries: list[tuple[Tensor, ...]] = []
    inverse_pivots: list[Tensor] = []
    for i in range(n):
        row: list[Tensor] = []
        for j in range(i + 1):
            value = a[i, j]
            for k in range(j):
                value = torch.addcmul(value, row[k], entries[j][k] if j < i else row[k], value=-1.0)
            row.append(value * inverse_pivots[j] if j < i else torch.sqrt(value))
        entries.append(tuple(row))
        inverse_pivots.append(row[i].reciprocal())
    return SmallCholesky(tuple(entries), tuple(inverse_pivots))


def as_leading(x: Tensor) -> Tensor:
    """A view with the matrix dimensions last, as ``torch.linalg`` wants them."""
    return x.movedim((0, 1), (-2, -1))


def from_leading(x: Tensor) -> Tensor:
    """The inverse view of :func:`as_leading`, contiguous."""
    return to_trailing(x)


def semidefinite_root(a: Float[Tensor, "n n *batch"]) -> Float[Tensor, "n n *batch"]:
    """Lower triangular ``L`` with ``L L' = a`` for positive semidefinite ``a``.

    A pivot lost in the rounding error of its own diagonal entry is a zero of the matrix, and its
    column is zero. The caller checks for negative matrices.
    """
    n = a.shape[0]
    tolerance = 4 * n * torch.finfo(a.dtype).eps
    rest = a
    columns = []
    for j in range(n):
        pivot = rest[j, j]
        kept = pivot > tolerance * a[j, j]
        scale = torch.where(kept, torch.where(kept, pivot, 1.0).rsqrt(), 0.0)
        column = torch.cat([torch.zeros_like(rest[:j, j]), rest[j:, j] * scale])
        columns.append(column)
        if j + 1 < n:
            rest = rest - column.unsqueeze(1) * column.unsqueeze(0)
    return torch.stack(columns, 1)


def semidefinite_roots(x: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """:func:`semidefinite_root` of matrices whose batch dimensions come first."""
    return from_trailing(semidefinite_root(to_trailing(x)))
