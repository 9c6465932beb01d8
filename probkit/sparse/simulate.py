"""Synthetic recovery problems of He & Joseph, arXiv 2307.14719, section V.

A_k has standard normal entries; x is either the outer product of sparse vectors ("rank1", the
paper's) or has independent normal entries on a Kronecker support ("free", the model's own); the
noise variance is mean abs(A x)^2 / snr.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.linalg.mode_products import mode_products, outer
from probkit.random import Seed, as_generator
from probkit.validation import check_choice

__all__ = ["RecoveryProblem", "simulate_recovery"]


class RecoveryProblem(NamedTuple):
    """A simulated problem with its truth; x and y have a leading snapshot dimension if asked."""

    dictionaries: list[Tensor]
    """(M_k, N_k)"""
    x: Tensor
    """([L,] N_1, ..., N_I)"""
    y: Tensor
    """([L,] M_1, ..., M_I)"""
    noise: float
    """variance"""


def simulate_recovery(
    *,
    num_atoms: int | Sequence[int] = 15,
    num_measurements: Sequence[int] = (8, 12, 15),
    num_nonzero: int = 3,
    snr_db: float = 20.0,
    structure: str = "free",
    num_snapshots: int | None = None,
    is_complex: bool = False,
    seed: Seed = 0,
) -> RecoveryProblem:
    """Draw a problem.

    Args:
        num_atoms: N_k, one for all factors or one each.
        num_measurements: M_k.
        num_nonzero: of every factor's support. Supports are nested in this number.
        snr_db: signal-to-noise ratio in decibels.
        structure: "free" or "rank1".
        num_snapshots: None for a single vector without a snapshot dimension.
        is_complex: circular complex entries throughout.
        seed: of everything.

    Raises:
        ConfigurationError: an unknown structure, or more non-zeros than atoms.

    Example:
        >>> problem = simulate_recovery(num_nonzero=2, seed=1)
        >>> problem.y.shape, int((problem.x != 0).sum())
        (torch.Size([8, 12, 15]), 8)
    """
    num_factors = len(num_measurements)
    sizes = (
        [int(num_atoms)] * num_factors if isinstance(num_atoms, int | Integral) else list(num_atoms)
    )
    _check(structure, num_nonzero, sizes)
    g = as_generator(seed)
    dtype = torch.complex128 if is_complex else torch.float64
    factors = [
        torch.randn(m, n, generator=g, dtype=dtype)
        for m, n in zip(num_measurements, sizes, strict=True)
    ]
    vectors, masks = [], []
    for n in sizes:
        where = torch.randperm(n, generator=g)[:num_nonzero]
        values = torch.randn(n, generator=g, dtype=dtype)  # drawn for all: supports are nested
        vectors.append(torch.zeros(n, dtype=dtype).scatter(0, where, values[:num_nonzero]))
        masks.append(torch.zeros(n, dtype=dtype).scatter(0, where, torch.ones(n, dtype=dtype)))
    columns = num_snapshots or 1
    if structure == "rank1":
        x = outer(vectors).expand(columns, *sizes).clone()
    else:
        x = outer(masks) * torch.randn(columns, *sizes, generator=g, dtype=dtype)
    clean = mode_products(x, factors)
    noise = float(clean.abs().square().mean()) / 10 ** (snr_db / 10)
    y = clean + math.sqrt(noise) * torch.randn(clean.shape, generator=g, dtype=dtype)
    if num_snapshots is None:
        x, y = x[0], y[0]
    return RecoveryProblem(factors, x, y, noise)


def _check(structure: str, num_nonzero: int, sizes: list[int]) -> None:
    check_choice("structure", "structure", structure, ("free", "rank1"))
    if num_nonzero > min(sizes):
        raise ConfigurationError(
            message(
                "More non-zeros than atoms",
                where="num_nonzero",
                got=num_nonzero,
                expected=f"<= {min(sizes)}",
            )
        )
