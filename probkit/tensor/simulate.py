"""Synthetic functional tensors with a known truth, for studies, tests and calibration checks.

    u^k_r ~ GP(0, Matern(nu, l_k)),   f = intercept + scale * sum_g W_g prod_k u^k[g_k](x_k)
    y ~ likelihood(f)

Coordinates are uniform on [0, 1]; paths are drawn by a dense Cholesky factor, O(D^3) a mode, on
purpose independent of the state-space code that a fit uses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.random import Seed, as_generator

__all__ = ["LikelihoodName", "SimulatedTensor", "simulate_functional_tucker"]

LikelihoodName = Literal["gaussian", "student_t", "poisson", "bernoulli", "negative_binomial"]

_JITTER = 1e-10


@dataclass(frozen=True)
class SimulatedTensor:
    """Entries of a simulated tensor and the truth behind them.

    ``unseen`` marks entries with at least one coordinate that was chosen to be held out whole, so
    that ``x[~unseen]`` is a training set and ``x[unseen]`` a test at new coordinates.
    """

    x: Float[Tensor, "N K"]
    y: Float[Tensor, " N"]
    f: Float[Tensor, " N"]
    """latent value, intercept included; the natural parameter for counts and labels"""
    unseen: Bool[Tensor, " N"]
    outlier: Bool[Tensor, " N"]
    grids: tuple[Float[Tensor, " D"], ...]
    factors: tuple[Float[Tensor, "D R"], ...]
    core: Tensor
    """(R_1, ..., R_K), super-diagonal for CP; the scale of f is in it"""
    noise: float
    """standard deviation (gaussian) or scale (student_t) of the noise"""
    lengthscales: tuple[float, ...]


def simulate_functional_tucker(
    num_entries: int,
    *,
    num_coordinates: Sequence[int] = (60, 80, 100),
    rank: int | Sequence[int] = 2,
    structure: Literal["tucker", "cp"] = "cp",
    lengthscales: Sequence[float] = (0.3, 0.2, 0.15),
    nu: float = 1.5,
    likelihood: LikelihoodName = "gaussian",
    noise: float = 0.1,
    noise_is_relative: bool = False,
    df: float = 4.0,
    dispersion: float = 5.0,
    intercept: float = 0.0,
    scale: float | None = None,
    unseen_fraction: float = 0.0,
    outlier_fraction: float = 0.0,
    outlier_size: float = 20.0,
    generator: Seed = None,
) -> SimulatedTensor:
    """Draw a functional tensor from the prior and noisy entries at random coordinates.

    Args:
        num_entries: N; entries may share coordinates and repeat.
        num_coordinates: D_k, distinct coordinates of each mode.
        rank: components of each mode; one number for all.
        structure: "cp" has unit weights on the super-diagonal, "tucker" a standard normal core.
        lengthscales: one a mode, on [0, 1].
        nu: smoothness of the Matern paths: 0.5, 1.5 or 2.5.
        likelihood: how y follows from f; the mean of poisson and negative_binomial is exp(f), the
            probability of a one for bernoulli sigmoid(f).
        noise: standard deviation (gaussian) or scale (student_t), in units of y.
        noise_is_relative: ``noise`` is a fraction of the standard deviation of f over the entries.
        df: degrees of freedom of student_t.
        dispersion: of negative_binomial: variance = mean + mean^2 / dispersion.
        intercept: added to f.
        scale: if given, f minus its intercept is scaled to this standard deviation.
        unseen_fraction: share of each mode's coordinates marked as held out.
        outlier_fraction: share of entries moved by ``+- outlier_size * noise`` (real y only).
        outlier_size: size of these outliers in noise standard deviations.
        generator: seed or ``torch.Generator``.

    Returns:
        The entries and the truth; tensors are float64.

    Raises:
        ConfigurationError: lengths that disagree, an unknown likelihood or smoothness, unequal
            ranks with "cp", or outliers asked for counts or labels.

    Example:
        >>> data = simulate_functional_tucker(500, unseen_fraction=0.2, generator=0)
        >>> data.x.shape, data.factors[2].shape
        (torch.Size([500, 3]), torch.Size([100, 2]))
        >>> counts = simulate_functional_tucker(500, likelihood="poisson", generator=0).y
        >>> bool((counts == counts.round()).all() and (counts >= 0).all())
        True
    """
    num_modes = len(num_coordinates)
    ranks = (int(rank),) * num_modes if isinstance(rank, int | Integral) else tuple(rank)
    _check(num_modes, ranks, structure, lengthscales, nu, likelihood, outlier_fraction)
    random = as_generator(generator)
    grids, factors = [], []
    for size, components, lengthscale in zip(num_coordinates, ranks, lengthscales, strict=True):
        grid = torch.rand(size, generator=random, dtype=torch.float64).sort().values
        grids.append(grid)
        factors.append(_paths(grid, components, lengthscale, nu, random))
    index = [torch.randint(0, size, (num_entries,), generator=random) for size in num_coordinates]
    core = _core(ranks, structure, random)
    f = _contract(core, [u[i] for u, i in zip(factors, index, strict=True)])
    if scale is not None:
        core, f = core * (scale / f.std()), f * (scale / f.std())
    if noise_is_relative:
        noise = noise * float(f.std())
    f = f + intercept
    y = _observe(f, likelihood, noise, df, dispersion, random)
    outlier = torch.rand(num_entries, generator=random, dtype=torch.float64) < outlier_fraction
    if outlier_fraction > 0:
        sign = torch.randint(0, 2, (num_entries,), generator=random) * 2 - 1
        y = torch.where(outlier, y + sign * outlier_size * noise, y)
    unseen = torch.zeros(num_entries, dtype=torch.bool)
    for size, i in zip(num_coordinates, index, strict=True):
        held_out = torch.randperm(size, generator=random)[: round(unseen_fraction * size)]
        unseen |= torch.isin(i, held_out)
    x = torch.stack([grid[i] for grid, i in zip(grids, index, strict=True)], dim=1)
    return SimulatedTensor(
        x, y, f, unseen, outlier, tuple(grids), tuple(factors), core, noise, tuple(lengthscales)
    )


def _paths(
    grid: Tensor, num_paths: int, lengthscale: float, nu: float, random: torch.Generator
) -> Tensor:
    distance = math.sqrt(2 * nu) / lengthscale * (grid[:, None] - grid[None, :]).abs()
    polynomial = torch.ones_like(distance)
    if nu >= 1.5:
        polynomial = polynomial + distance
    if nu == 2.5:
        polynomial = polynomial + distance.square() / 3
    covariance = polynomial * torch.exp(-distance)
    root = torch.linalg.cholesky(covariance + _JITTER * torch.eye(len(grid), dtype=grid.dtype))
    return root @ torch.randn(len(grid), num_paths, generator=random, dtype=grid.dtype)


def _core(ranks: tuple[int, ...], structure: str, random: torch.Generator) -> Tensor:
    if structure == "tucker":
        return torch.randn(*ranks, generator=random, dtype=torch.float64)
    core = torch.zeros(*ranks, dtype=torch.float64)
    diagonal = torch.arange(ranks[0])
    core[(diagonal,) * len(ranks)] = 1.0
    return core


def _contract(core: Tensor, rows: list[Tensor]) -> Tensor:
    """``sum_g W_g prod_k rows_k[n, g_k]``, a mode at a time from the last."""
    value = (core.reshape(-1, core.shape[-1]) @ rows[-1].T).T.reshape(-1, *core.shape[:-1])
    for row in reversed(rows[:-1]):
        value = (value * row.reshape(len(row), *[1] * (value.dim() - 2), -1)).sum(-1)
    return value


def _observe(
    f: Tensor, likelihood: str, noise: float, df: float, dispersion: float, random: torch.Generator
) -> Tensor:
    if likelihood == "bernoulli":
        return torch.bernoulli(torch.sigmoid(f), generator=random)
    if likelihood == "poisson":
        return torch.poisson(torch.exp(f), generator=random)
    if likelihood == "negative_binomial":  # Poisson with a Gamma rate of mean exp(f)
        shape = torch.full_like(f, dispersion)
        rate = torch._standard_gamma(shape, generator=random) * torch.exp(f) / dispersion
        return torch.poisson(rate, generator=random)
    error = torch.randn(f.shape, generator=random, dtype=f.dtype)
    if likelihood == "student_t":
        shape = torch.full_like(f, df / 2)
        error = error / (torch._standard_gamma(shape, generator=random) * 2 / df).sqrt()
    return f + noise * error


def _check(
    num_modes: int,
    ranks: tuple[int, ...],
    structure: str,
    lengthscales: Sequence[float],
    nu: float,
    likelihood: str,
    outlier_fraction: float,
) -> None:
    known = ("gaussian", "student_t", "poisson", "bernoulli", "negative_binomial")
    problems = (
        (len(ranks) != num_modes, "rank", len(ranks), f"{num_modes} numbers"),
        (len(lengthscales) != num_modes, "lengthscales", len(lengthscales), f"{num_modes} numbers"),
        (structure not in ("cp", "tucker"), "structure", structure, "'cp' or 'tucker'"),
        (structure == "cp" and len(set(ranks)) > 1, "rank", ranks, "equal ranks for CP"),
        (nu not in (0.5, 1.5, 2.5), "nu", nu, "0.5, 1.5 or 2.5"),
        (likelihood not in known, "likelihood", likelihood, " or ".join(known)),
        (
            outlier_fraction > 0 and likelihood not in known[:2],
            "outlier_fraction",
            outlier_fraction,
            f"0 with likelihood {likelihood!r}",
        ),
    )
    for wrong, where, got, expected in problems:
        if wrong:
            raise ConfigurationError(
                message(
                    "The simulation's settings do not fit together",
                    where=where,
                    got=got,
                    expected=expected,
                    remedy="change this argument, or those it must agree with",
                )
            )
