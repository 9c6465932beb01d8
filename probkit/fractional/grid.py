"""Posterior of Hurst index, noise and mean reversion by quadrature, the scale integrated out.

Under the prior ``1 / sigma`` on the scale the likelihood of a point of the grid is::

    p(y) ~ (sum v^2 / S)^(-n / 2) prod S^(-1/2)

and ``sigma^2`` given the point is inverse gamma. Priors: uniform in H over the table's range,
uniform in the logarithm of the noise variance (relative to that of an increment over one step)
and of the reversion rate. A coarse grid finds the mass, a second one covers it finely.
Cost: one pass of the filter over the series for each grid, all points at once.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.fractional.batch_filter import filter_batch
from probkit.fractional.series import Series
from probkit.fractional.system import fractional_system
from probkit.random import Seed, as_generator
from probkit.statespace.fractional_tables import HURST_RANGE

__all__ = [
    "NOISE_RANGE",
    "GridPosterior",
    "draw_grid",
    "grid_log_density",
    "grid_posterior",
    "reversion_range",
]

NOISE_RANGE = (math.log(1e-3), math.log(1e4))
_MASS = 1e-5
_CHUNK = 4_000


class GridPosterior(NamedTuple):
    """Normalised weights on the points of a grid.

    Attributes:
        hurst, log_noise, log_reversion: (G,) coordinates; the last two None where absent.
        weight: (R, G) for every series.
        quadratic: (R, G), the sum of squares that goes with the scale.
        num_observed: observations that enter.
        log_evidence: (R,) up to the constant of the improper scale prior; comparable between
            models of the same data.
    """

    hurst: Float[Tensor, " G"]
    log_noise: Tensor | None
    log_reversion: Tensor | None
    weight: Float[Tensor, "R G"]
    quadratic: Float[Tensor, "R G"]
    num_observed: int
    log_evidence: Float[Tensor, " R"]


def grid_posterior(
    series: Series, *, noise: bool, reversion: bool, size: int, hurst: float | None = None
) -> GridPosterior:
    """The posterior of every series on a common grid.

    Args:
        noise: whether there is observation noise.
        reversion: whether the level reverts to its mean.
        size: points of the Hurst index in the fine grid.
        hurst: a fixed value, for comparisons.
    """
    ranges = [HURST_RANGE if hurst is None else (hurst, hurst)]
    if noise:
        ranges.append(NOISE_RANGE)
    if reversion:
        ranges.append(reversion_range(series))
    counts = [1 if hurst is not None else 41, *([15] * (len(ranges) - 1))]
    coarse = _evaluate(series, ranges, counts, noise, reversion)
    fine = [_support(coarse, axis, span) for axis, span in enumerate(ranges)]
    counts = [1 if hurst is not None else size, *([25] * (len(ranges) - 1))]
    return _evaluate(series, fine, counts, noise, reversion)


def draw_grid(grid: GridPosterior, num_samples: int, seed: Seed) -> dict[str, Tensor]:
    """Draws of all series in step units, (1, draw, series) by site; uniform inside the cells."""
    generator = as_generator(seed)
    index = torch.multinomial(grid.weight, num_samples, True, generator=generator)
    coordinates = {"hurst": grid.hurst}
    if grid.log_noise is not None:
        coordinates["log_noise"] = grid.log_noise
    if grid.log_reversion is not None:
        coordinates["log_reversion"] = grid.log_reversion
    draws = {}
    for name, values in coordinates.items():
        unique = torch.unique(values)
        cell = float(unique.diff().mean()) if len(unique) > 1 else 0.0
        jitter = torch.rand(index.shape, generator=generator, dtype=torch.float64) - 0.5
        inside = values[index] + cell * jitter
        draws[name] = inside.clamp(float(unique[0]), float(unique[-1]))
    shape = torch.full(index.shape, grid.num_observed / 2, dtype=torch.float64)
    gamma = torch._standard_gamma(shape, generator)
    square = grid.quadratic.gather(1, index) / 2 / gamma
    draws["log_scale"] = 0.5 * torch.log(square)
    return {name: value.mT[None] for name, value in draws.items()}


def grid_log_density(
    series: Series,
    hurst: Float[Tensor, " I"],
    log_noise: Float[Tensor, " J"],
    *,
    reversion: bool,
) -> Float[Tensor, "I J"]:
    """Log posterior density of index and noise, up to a constant, of series that share all.

    The scale is integrated out, and the reversion rate summed over fifteen values of its range.
    """
    axes = [hurst, log_noise]
    if reversion:
        axes.append(torch.linspace(*reversion_range(series), 15, dtype=torch.float64))
    parts = [
        _pieces(series, some, True, reversion) for some in torch.cartesian_prod(*axes).split(_CHUNK)
    ]
    log_variance = torch.cat([part[0] for part in parts])
    quadratic = torch.cat([part[1].sum(0) for part in parts])
    number = len(series.values)
    density = -0.5 * number * (series.num_observed * torch.log(quadratic) + log_variance)
    return torch.logsumexp(density.reshape(len(hurst), len(log_noise), -1), -1)


def reversion_range(series: Series) -> tuple[float, float]:
    """Logarithms of the reversion rates per step: from a tenth of the span to three steps."""
    return math.log(0.1 / series.span), math.log(3.0)


def _evaluate(
    series: Series,
    ranges: list[tuple[float, float]],
    counts: list[int],
    noise: bool,
    reversion: bool,
) -> GridPosterior:
    axes = [
        torch.linspace(*span, number, dtype=torch.float64)
        for span, number in zip(ranges, counts, strict=True)
    ]
    points = torch.cartesian_prod(*axes) if len(axes) > 1 else axes[0][:, None]
    parts = [_pieces(series, some, noise, reversion) for some in points.split(_CHUNK)]
    log_variance = torch.cat([part[0] for part in parts], -1)
    quadratic = torch.cat([part[1] for part in parts], -1)
    count = series.num_observed
    log_density = -0.5 * (count * torch.log(quadratic) + log_variance)
    cells = zip(ranges, counts, strict=True)
    cell = sum(math.log((b - a) / n) for (a, b), n in cells if b > a)
    total = sum(math.log(b - a) for a, b in _prior_ranges(series, ranges, noise, reversion))
    return GridPosterior(
        points[:, 0],
        points[:, 1] if noise else None,
        points[:, -1] if reversion else None,
        torch.softmax(log_density, -1),
        quadratic,
        count,
        torch.logsumexp(log_density, -1) + cell - total,
    )


def _pieces(series: Series, points: Tensor, noise: bool, reversion: bool) -> tuple[Tensor, Tensor]:
    hurst = points[:, 0].contiguous()
    level = points[:, 1].exp() if noise else torch.zeros_like(hurst)
    rate = points[:, -1].exp() if reversion else None
    system = fractional_system(hurst, level, rate, series.span)
    pieces = filter_batch(system, series)
    return pieces.log_variance, pieces.quadratic


def _prior_ranges(
    series: Series, ranges: list[tuple[float, float]], noise: bool, reversion: bool
) -> list[tuple[float, float]]:
    """The prior's ranges of the parameters that vary, whatever part of them a grid covers."""
    found = [HURST_RANGE] if ranges[0][1] > ranges[0][0] else []
    found += [NOISE_RANGE] if noise else []
    return found + ([reversion_range(series)] if reversion else [])


def _support(grid: GridPosterior, axis: int, span: tuple[float, float]) -> tuple[float, float]:
    """The part of a range that any series gives more than 1e-5 of its mass, and a cell more."""
    coordinates = [c for c in (grid.hurst, grid.log_noise, grid.log_reversion) if c is not None]
    values = coordinates[axis]
    unique, index = torch.unique(values, return_inverse=True)
    if len(unique) == 1:
        return span
    mass = grid.weight.new_zeros(len(grid.weight), len(unique)).index_add_(1, index, grid.weight)
    kept = torch.nonzero((mass > _MASS).any(0))[:, 0]
    first = max(int(kept[0]) - 1, 0)
    last = min(int(kept[-1]) + 1, len(unique) - 1)
    return float(unique[first]), float(unique[last])
