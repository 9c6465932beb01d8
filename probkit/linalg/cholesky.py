"""Cholesky factorisation that says what it had to do, and why it failed.

The escalation is: no jitter; jitter relative to the mean diagonal, from ``100 eps`` upwards by
factors of ten, reported by a ``PrecisionWarning``; then an error that diagnoses the matrix. Each
matrix of a batch goes its own way, so that a bad one leaves the others as they are.
"""

from __future__ import annotations

import warnings
from typing import NoReturn

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import NotPositiveDefiniteError, PrecisionWarning, message

__all__ = ["safe_cholesky"]

NUM_TRIES = 5


def safe_cholesky(
    matrix: Float[Tensor, "*batch n n"], *, where: str
) -> tuple[Float[Tensor, "*batch n n"], float]:
    """Lower Cholesky factor of a symmetric matrix, and the jitter added to its diagonal.

    Args:
        matrix: symmetric; ``matrix + jitter I`` is factorised, with a jitter only for those
            matrices of a batch that need one, relative to their own diagonal.
        where: what the matrix is, for the messages, e.g. ``"kernel matrix of mode 1"``.

    Returns:
        The factor and the largest jitter of the batch, 0.0 when none was needed.

    Raises:
        NotPositiveDefiniteError: non-finite entries, or not positive definite even with a jitter
            of ``1e6 eps`` times the mean diagonal; duplicate rows are named.

    Warns:
        PrecisionWarning: a jitter was added.

    Example:
        >>> factor, jitter = safe_cholesky(4 * torch.eye(2), where="example")
        >>> factor.tolist(), jitter
        ([[2.0, 0.0], [0.0, 2.0]], 0.0)
    """
    if not bool(torch.isfinite(matrix).all()):
        _raise(matrix, where, 0.0)
    factor, info = torch.linalg.cholesky_ex(matrix)
    bad = info > 0
    if not bool(bad.any()):
        return factor, 0.0
    scale = matrix.detach().diagonal(dim1=-2, dim2=-1).mean(-1).abs()
    unit = 100 * torch.finfo(matrix.dtype).eps * scale
    jitter, failed = torch.zeros_like(unit), bad
    for exponent in range(NUM_TRIES):
        jitter = torch.where(failed, unit * 10**exponent, jitter)
        added = torch.diag_embed(jitter.unsqueeze(-1).expand(matrix.shape[:-1]))
        factor, info = torch.linalg.cholesky_ex(matrix + added)
        failed = info > 0
        if not bool(failed.any()):
            largest = float(jitter.max())
            text = message(
                f"A jitter of {largest:.1e} was added to make a matrix positive definite",
                where=where,
                causes=_causes(matrix[bad]),
            )
            warnings.warn(text, PrecisionWarning, stacklevel=2)
            return factor, largest
    _raise(matrix[failed], where, float(jitter[failed].max()))


def _raise(matrix: Tensor, where: str, jitter: float) -> NoReturn:
    raise NotPositiveDefiniteError(
        message(
            "A matrix is not positive definite"
            + (f", even with jitter {jitter:.1e}" * (jitter > 0)),
            where=where,
            got=f"shape {tuple(matrix.shape)}, {matrix.dtype}",
            causes=_causes(matrix),
            remedy="remove duplicate points, add observation noise, or use float64",
        )
    )


def _causes(matrix: Tensor) -> tuple[str, ...]:
    """Likely causes, the most specific first."""
    entries = matrix.detach().reshape(-1, *matrix.shape[-2:])
    if not bool(torch.isfinite(entries).all()):
        batch, row, column = (int(i) for i in (~torch.isfinite(entries)).nonzero()[0])
        return (f"the entry in row {row}, column {column} is {float(entries[batch, row, column])}",)
    eps = torch.finfo(matrix.dtype).eps
    asymmetry = float((entries - entries.mT).abs().max())
    size = float(entries.abs().max())
    if asymmetry > 100 * eps * size:
        return (f"the matrix is not symmetric, by {asymmetry:.1e}",)
    diagonal = entries.diagonal(dim1=-2, dim2=-1)
    if bool((diagonal <= 0).any()):
        row = int((diagonal <= 0).any(0).nonzero()[0])
        return (f"the diagonal entry in row {row} is not positive",)
    pair = _duplicate_rows(entries)
    if pair is not None:
        return (f"rows {pair[0]} and {pair[1]} are equal or nearly so (duplicate points)",)
    smallest = float(torch.linalg.eigvalsh(entries).min())
    return (f"the smallest eigenvalue is {smallest:.1e} against a largest entry of {size:.1e}",)


def _duplicate_rows(entries: Tensor) -> tuple[int, int] | None:
    """The first pair of rows whose correlation is one to working precision."""
    scale = entries.diagonal(dim1=-2, dim2=-1).rsqrt()
    correlation = entries * scale.unsqueeze(-1) * scale.unsqueeze(-2)
    tolerance = 100 * torch.finfo(entries.dtype).eps
    near = ((correlation - 1).abs() < tolerance).any(0).triu(1)
    pairs = near.nonzero()
    return (int(pairs[0, 0]), int(pairs[0, 1])) if len(pairs) else None
