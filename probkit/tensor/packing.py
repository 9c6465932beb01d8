"""Symmetric matrices as vectors of their upper triangle: half the storage, less work.

A second moment ``M = E[u u']`` (R, R) is kept as ``p`` (P,), P = R (R + 1) / 2. A quadratic form
``u' B u`` becomes the inner product ``coefficients(B) . p``, where the coefficients hold
``B_rs + B_sr`` for ``r < s``. With two other modes this turns the R^6 products of the functional
Tucker updates into P^3, about R^6 / 8.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

__all__ = ["num_packed", "pack", "pack_coefficients", "pair_index", "unpack", "unpack_coefficients"]


def num_packed(size: int) -> int:
    """Length of the packed form of a symmetric ``size`` x ``size`` matrix."""
    return size * (size + 1) // 2


def pair_index(size: int, device: torch.device | None = None) -> Int64[Tensor, "R R"]:
    """Position of entry (r, s) in the packed form, symmetric in (r, s)."""
    rows, columns = torch.triu_indices(size, size, device=device)
    index = torch.empty(size, size, dtype=torch.int64, device=device)
    index[rows, columns] = torch.arange(num_packed(size), device=device)
    index[columns, rows] = index[rows, columns]
    return index


def pack(matrix: Float[Tensor, "*batch R R"]) -> Float[Tensor, "*batch P"]:
    """Upper triangle of symmetric matrices, row by row.

    Example:
        >>> pack(torch.tensor([[1.0, 2.0], [2.0, 3.0]])).tolist()
        [1.0, 2.0, 3.0]
    """
    size = matrix.shape[-1]
    rows, columns = torch.triu_indices(size, size, device=matrix.device)
    return matrix[..., rows, columns]


def unpack(packed: Float[Tensor, "*batch P"], size: int) -> Float[Tensor, "*batch R R"]:
    """Inverse of :func:`pack`."""
    return packed[..., pair_index(size, packed.device)]


def pack_coefficients(matrix: Float[Tensor, "*batch R R"]) -> Float[Tensor, "*batch P"]:
    """Coefficients of a quadratic form against packed second moments: ``B_rs + B_sr``.

    Example:
        >>> m = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
        >>> b = torch.tensor([[1.0, 0.5], [-0.25, 4.0]])
        >>> bool(torch.isclose(pack_coefficients(b) @ pack(m), (b * m).sum()))
        True
    """
    size = matrix.shape[-1]
    rows, columns = torch.triu_indices(size, size, device=matrix.device)
    upper = matrix[..., rows, columns]
    return torch.where(rows == columns, upper, upper + matrix[..., columns, rows])


def unpack_coefficients(
    coefficients: Float[Tensor, "*batch P"], size: int
) -> Float[Tensor, "*batch R R"]:
    """Symmetric matrix ``B`` whose quadratic form has these coefficients."""
    index = pair_index(size, coefficients.device)
    half = torch.full((size, size), 0.5, dtype=coefficients.dtype, device=coefficients.device)
    half.fill_diagonal_(1.0)
    return coefficients[..., index] * half
