"""Factors of a matrix that is a Kronecker product.

The rearrangement of Van Loan and Pitsianis turns A x B into the rank-one matrix vec(A) vec(B)', so
that the nearest product in the Frobenius norm is a leading pair of singular vectors; more factors
are split off one after the other, which is exact where the matrix is a product. What is left over
is measured, and too much of it is refused: a dictionary that is no product has no place here.
Source: Van Loan & Pitsianis, Linear Algebra for Large Scale and Real-Time Applications (1993).
Cost: a singular value decomposition of m_1 n_1 times (the rest) for each factor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from probkit.errors import DataError, ShapeError, message

__all__ = ["nearest_kronecker"]


def nearest_kronecker(
    matrix: Tensor, shapes: Sequence[tuple[int, int]], *, tolerance: float = 1e-6
) -> list[Tensor]:
    """Matrices of the given shapes whose Kronecker product is ``matrix``, of equal norms.

    Args:
        matrix: (prod m_k, prod n_k), real or complex.
        shapes: (m_k, n_k) of every factor, the first varying slowest.
        tolerance: of the relative residual in the Frobenius norm.

    Raises:
        ShapeError: the shapes do not multiply to the matrix's.
        DataError: no product is as near as the tolerance asks.

    Example:
        >>> a, b = torch.randn(2, 3).double(), torch.randn(4, 2).double()
        >>> found = nearest_kronecker(torch.kron(a, b), [(2, 3), (4, 2)])
        >>> bool(torch.allclose(torch.kron(*found), torch.kron(a, b)))
        True
    """
    rows, columns = (math.prod(s[i] for s in shapes) for i in (0, 1))
    if matrix.dim() != 2 or tuple(matrix.shape) != (rows, columns):
        raise ShapeError(
            message(
                "The factors' shapes do not multiply to the matrix's",
                where="shapes",
                got=list(shapes),
                expected=f"products {tuple(matrix.shape)}",
            )
        )
    found, rest = [], matrix
    for m, n in shapes[:-1]:
        inner = (rest.shape[0] // m, rest.shape[1] // n)
        blocks = rest.reshape(m, inner[0], n, inner[1]).transpose(1, 2).reshape(m * n, -1)
        left, size, right = torch.linalg.svd(blocks, full_matrices=False)
        found.append(left[:, 0].reshape(m, n))
        rest = (size[0] * right[0]).reshape(inner)
    found.append(rest)
    level = rest.norm() ** (1 / len(found))
    found = [level * f / f.norm() if float(f.norm()) > 0 else f for f in found]
    size = matrix.norm()
    residual = float((reduce(torch.kron, found) - matrix).norm() / size) if float(size) else 0.0
    if not residual <= tolerance:
        raise DataError(
            message(
                "The matrix is not a Kronecker product of these shapes",
                where="matrix",
                got=f"relative residual {residual:.2g} of the nearest one",
                expected=f"<= {tolerance:.2g}",
                causes=("the shapes are in another order", "the dictionary has no such structure"),
                remedy="check shapes; without the structure, pass [matrix] as the only dictionary",
            )
        )
    return found
