"""Baselines of sparse recovery: OMP, Kronecker OMP and least squares on the true support.

None of them is a probabilistic model; all avoid the dense dictionary.
Source: Pati, Rezaiifar & Krishnaprasad (1993); Caiafa & Cichocki, Neural Comput. 25 (2013).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from probkit.linalg.mode_products import mode_products

__all__ = ["kronecker_omp", "omp", "oracle_least_squares"]


def oracle_least_squares(y: Tensor, dictionaries: Sequence[Tensor], truth: Tensor) -> Tensor:
    """Least squares on the smallest Kronecker support that holds the true one.

    Args:
        y: (M_1, ..., M_I).
        dictionaries: (M_k, N_k).
        truth: (N_1, ..., N_I), of which only the support is used.

    Example:
        >>> a = torch.eye(2, dtype=torch.float64)
        >>> oracle_least_squares(torch.tensor([3.0, 1.0]).double(), [a], torch.tensor([1.0, 0.0]))
        tensor([3., 0.], dtype=torch.float64)
    """
    used = [
        (truth != 0).movedim(k, 0).flatten(1).any(1).nonzero().squeeze(-1)
        if truth.dim() > 1
        else (truth != 0).nonzero().squeeze(-1)
        for k in range(truth.dim())
    ]
    return _least_squares(y, dictionaries, used, tuple(truth.shape))


def kronecker_omp(
    y: Tensor,
    dictionaries: Sequence[Tensor],
    *,
    max_size: int | Sequence[int],
    tolerance: float = 1e-2,
) -> Tensor:
    """Greedy recovery with a Kronecker support.

    The atom most correlated with the residual adds its index to every factor's set.

    Args:
        y: (M_1, ..., M_I).
        dictionaries: (M_k, N_k).
        max_size: of each factor's set.
        tolerance: of the relative residual at which to stop.

    Example:
        >>> a = torch.eye(3, dtype=torch.float64)
        >>> kronecker_omp(torch.tensor([0.0, 5.0, 0.0]).double(), [a], max_size=2)
        tensor([0., 5., 0.], dtype=torch.float64)
    """
    num = len(dictionaries)
    limits = [max_size] * num if isinstance(max_size, int) else list(max_size)
    sizes = tuple(a.shape[-1] for a in dictionaries)
    used: list[list[int]] = [[] for _ in dictionaries]
    x, residual = y.new_zeros(sizes), y
    while float(residual.norm()) > tolerance * float(y.norm()):
        correlation = mode_products(residual, [a.mH for a in dictionaries]).abs()
        top = torch.unravel_index(correlation.argmax(), sizes)
        added = False
        for chosen, index, limit in zip(used, top, limits, strict=True):
            if int(index) not in chosen and len(chosen) < limit:
                chosen.append(int(index))
                added = True
        if not added:
            break
        kept = [torch.tensor(sorted(c), device=y.device) for c in used]
        x = _least_squares(y, dictionaries, kept, sizes)
        residual = y - mode_products(x, list(dictionaries))
    return x


def omp(
    y: Tensor,
    dictionaries: Sequence[Tensor],
    *,
    noise: float,
    max_atoms: int | None = None,
) -> Tensor:
    """Orthogonal matching pursuit to a residual of sqrt(noise * number of measurements).

    Args:
        y: (M_1, ..., M_I).
        dictionaries: (M_k, N_k).
        noise: variance.
        max_atoms: limit; None for the number of measurements.

    Example:
        >>> a = torch.eye(3, dtype=torch.float64)
        >>> omp(torch.tensor([0.0, 5.0, 0.1]).double(), [a], noise=0.01)
        tensor([0., 5., 0.], dtype=torch.float64)
    """
    sizes = tuple(a.shape[-1] for a in dictionaries)
    limit = min(y.numel() if max_atoms is None else max_atoms, y.numel(), math.prod(sizes))
    atoms: list[Tensor] = []
    chosen: list[int] = []
    residual, coefficients = y, y.new_zeros(0)
    while len(chosen) < limit and float(residual.norm()) > math.sqrt(noise * y.numel()):
        correlation = mode_products(residual, [a.mH for a in dictionaries]).abs().flatten()
        correlation[chosen] = -1.0
        best = int(correlation.argmax())
        chosen.append(best)
        indices = torch.unravel_index(torch.tensor(best), sizes)
        atom = y.new_ones(())
        for a, i in zip(dictionaries, indices, strict=True):
            atom = torch.kron(atom, a[:, i].to(y.dtype))
        atoms.append(atom)
        columns = torch.stack(atoms, -1)
        coefficients = torch.linalg.lstsq(columns, y.flatten().unsqueeze(-1)).solution.squeeze(-1)
        residual = y - (columns @ coefficients).reshape(y.shape)
    x = y.new_zeros(math.prod(sizes))
    x[chosen] = coefficients
    return x.reshape(sizes)


def _least_squares(
    y: Tensor, dictionaries: Sequence[Tensor], used: Sequence[Tensor], sizes: tuple[int, ...]
) -> Tensor:
    pairs = zip(dictionaries, used, strict=True)
    kept = mode_products(y, [torch.linalg.pinv(a[:, i]) for a, i in pairs])
    x = y.new_zeros(sizes)
    x[torch.meshgrid(*used, indexing="ij")] = kept
    return x
