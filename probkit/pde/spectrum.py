"""Where the solution's power lies, read off the source: periodogram, band limit, first prior.

The source is windowed (Kaiser, beta = 14, side lobes below 1e-10) so that its ends do not leak, and
transformed at the harmonics:

    P_j = abs(sum_n k_n f_n exp(-2 pi i j (x_n - a) / T))^2
    top = highest frequency with P_j > 1e-10 max P,   f_max = min(1.35 top + 4 / L, 0.49 (N-1) / L)
    S_j = smoothed P_j / w_j^(2 p), floored at 1e-9, plus 1e-2 / (1 + (f_j L)^4)

p being the order of the operator; the last term is the smooth part that the source does not show.
Nothing is known of the solution. Cost: O(N J).
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.linalg.whitened import whitened_solve
from probkit.pde.harmonics import Harmonics

__all__ = [
    "Band",
    "SpectralPrior",
    "apparent_noise",
    "band_limit",
    "density_scales",
    "periodogram",
    "prior_scales",
    "scattered_band",
]

_BETA = 14.0
_VISIBLE = 1e-10
_CHANCE = 12.0  # exp(-12): how often noise alone exceeds it at one frequency
_REPRODUCED = 1e-12
_SMOOTHING = 6


class SpectralPrior(Protocol):
    """A stationary kernel known by its spectral density."""

    def spectral_density(self, frequency: Tensor) -> Tensor:
        """S(f), f in cycles per unit, over all real f: the kernel is its Fourier integral."""
        ...


class Band(NamedTuple):
    """What is known of the frequencies of a side, in cycles per unit."""

    top: float
    limit: float
    nyquist: float
    visible: float = 0.0
    """share of the frequencies up to Nyquist's at which the source has power"""

    @property
    def near_nyquist(self) -> bool:
        """Whether the source reaches the last tenth below half the sampling rate."""
        return self.top > 0.9 * self.nyquist


def periodogram(
    columns: Float[Tensor, "n k"], x: Float[Tensor, " n"], frequencies: Float[Tensor, " j"]
) -> Float[Tensor, " j"]:
    """Mean windowed power of columns over points x, at given frequencies (cycles per unit)."""
    weight = _window(x)
    angle = 2 * math.pi * frequencies[:, None] * (x - x.min())
    weighted = columns * (weight / weight.sum())[:, None]
    return ((angle.cos() @ weighted).square() + (angle.sin() @ weighted).square()).mean(-1)


def band_limit(
    columns: Float[Tensor, "n k"],
    x: Float[Tensor, " n"],
    length: float,
    num_points: int,
    *,
    noise: float = 0.0,
) -> Band:
    """The band that the solution may need, from the source alone.

    Args:
        columns: the source along this side.
        x: coordinates of its rows.
        length: of the side.
        num_points: points along the side; sets the Nyquist frequency.
        noise: standard deviation of the source; what it may raise by chance is no signal.
    """
    nyquist = 0.5 * (num_points - 1) / length
    grid = torch.arange(0, math.ceil(2 * nyquist * length) + 1, dtype=x.dtype) / (2 * length)
    grid = grid[grid <= nyquist]
    power = periodogram(columns, x, grid)
    weight = _window(x)
    chance = _CHANCE * noise**2 * float((weight / weight.sum()).square().sum())
    seen = grid[power > max(_VISIBLE * float(power.max()), chance)]
    top = float(seen.max()) if len(seen) else 0.0
    limit = min(1.35 * top + 4 / length, 0.98 * nyquist)
    return Band(top, limit, nyquist, len(seen) / len(grid))


def apparent_noise(
    columns: Float[Tensor, "n k"], x: Float[Tensor, " n"], length: float, num_points: int
) -> float:
    """Standard deviation of white noise on a source whose signal leaves the upper band free.

    The power of noise at a frequency is exponential, with median log 2 of its mean.

    Example:
        >>> x = torch.linspace(0, 1, 400, dtype=torch.float64)
        >>> e = torch.randn(400, 1, generator=torch.Generator().manual_seed(0)).double()
        >>> abs(apparent_noise(torch.sin(40 * x)[:, None] + 0.1 * e, x, 1.0, 400) - 0.1) < 0.02
        True
    """
    nyquist = 0.5 * (num_points - 1) / length
    grid = torch.linspace(0.5 * nyquist, nyquist, max(num_points // 2, 8), dtype=x.dtype)
    weight = _window(x)
    share = float((weight / weight.sum()).square().sum())
    return math.sqrt(float(periodogram(columns, x, grid).median()) / (math.log(2) * share))


def prior_scales(
    side: Harmonics, columns: Float[Tensor, "n k"], x: Float[Tensor, " n"], order: int
) -> Float[Tensor, " size"]:
    """First prior variances of the harmonics, the largest near one.

    Args:
        order: p of the operator along this side; 0 for a prior on the columns themselves.
    """
    frequencies = side.frequencies()[: side.num + 1]
    power = periodogram(columns, x, frequencies)[None, None]
    padded = torch.nn.functional.pad(power, (_SMOOTHING, _SMOOTHING), mode="replicate")
    smooth = torch.nn.functional.avg_pool1d(padded, 2 * _SMOOTHING + 1, stride=1)[0, 0]
    speed = 2 * math.pi * frequencies.clamp(min=0.5 / side.length)
    shape = smooth / speed ** (2 * order)
    largest = float(shape.max())
    shape = shape / largest if largest > 0 else torch.zeros_like(shape)
    scales = shape.clamp(min=1e-9) + 1e-2 / (1 + (frequencies * side.length) ** 4)
    return torch.cat([scales, scales[1:]])


def density_scales(
    side: Harmonics, prior: SpectralPrior, *, detach: bool = True
) -> Float[Tensor, " size"]:
    """Prior variances of the harmonics under a kernel: the trapezoid rule on its spectrum.

    Args:
        detach: whether parameters of the kernel are known numbers, even if they can be trained.
    """
    density = prior.spectral_density(side.frequencies())
    own = 2 * (density.detach() if detach else density) / side.period
    return torch.cat([own[:1] / 2, own[1:]])


def scattered_band(
    values: Float[Tensor, " n"], x: Float[Tensor, " n"], low: float, length: float
) -> Band:
    """The band of scattered values in one dimension, where a periodogram leaks everywhere.

    The number of harmonics is doubled until a smooth fit reproduces the values to 1e-12.
    """
    nyquist = 0.5 * (len(x) - 1) / length
    limit, size = 4 / length, float(values.norm())
    while limit < 0.98 * nyquist:
        side = Harmonics(low, length, 2 * length, math.ceil(limit * 2 * length))
        scale = 1 / (1 + (side.frequencies() / limit) ** 4)
        rows = side.rows(x)
        found = whitened_solve(rows, values, scale)
        if float((rows @ found.weights - values).norm()) <= _REPRODUCED * size:
            return Band(limit / 1.35, limit, nyquist)
        limit *= 2
    return Band(nyquist, 0.98 * nyquist, nyquist)


def _window(x: Tensor) -> Tensor:
    """Kaiser window over the points, times the length that each stands for."""
    first, last = x.min(), x.max()
    place = (2 * (x - first) / (last - first) - 1).clamp(-1, 1)
    return torch.special.i0(_BETA * (1 - place.square()).clamp(min=0).sqrt()) * _spacing(x)


def _spacing(x: Tensor) -> Tensor:
    """Length that each point stands for (trapezoid rule), in any order of the points."""
    order = x.argsort()
    gaps = torch.diff(x[order])
    half = torch.cat([gaps[:1], (gaps[1:] + gaps[:-1]) / 2, gaps[-1:]])
    return torch.empty_like(x).index_copy(0, order, half)
