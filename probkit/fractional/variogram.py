"""The variogram of a series against that of series drawn from its posterior.

``g(tau) = mean of (y(t + tau) - y(t))^2`` grows as ``tau^2H`` where the process is fractional
Brownian motion; noise lifts it by twice its variance at every lag, and mean reversion bends it
level. Sample variograms at neighbouring lags err together, so the band of the model is that of
replicated series under the same times and gaps, not that of the expectation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probkit.fractional.series import Series

__all__ = ["Variogram", "sample_variogram", "variogram_lags"]

_NUM_LAGS = 20


class Variogram(NamedTuple):
    """``lags`` in the user's unit of time, ``data`` (L,), ``replicated`` (L, S)."""

    lags: Float[Tensor, " L"]
    data: Float[Tensor, " L"]
    replicated: Float[Tensor, "L S"]


def variogram_lags(num: int) -> list[int]:
    """Lags in observations, about evenly spaced in the logarithm, up to a quarter of the series.

    Example:
        >>> variogram_lags(40)
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    """
    longest = max(num // 4, 1)
    spaced = np.geomspace(1, longest, min(_NUM_LAGS, longest)).round().astype(int)
    return sorted({int(lag) for lag in spaced} | set(range(1, min(longest, 10) + 1)))


def sample_variogram(
    series: Series, values: Float[Tensor, "T S"]
) -> tuple[Float[Tensor, " L"], Float[Tensor, "L S"]]:
    """Mean distance in time (in steps) and mean squared difference, by lag in observations.

    Of increments it is the variogram of their running sum about its mean, missing ones counting as
    the mean; the replicates of a series are treated likewise.

    Args:
        values: one series a column, at the steps of ``series``.
    """
    if series.increments:
        held = values[series.observed] - values[series.observed].mean(0)
        levels = torch.zeros_like(values)
        levels[series.observed] = held
        levels = torch.cat([levels[:1] * 0, levels.cumsum(0)])
        times = torch.arange(len(levels), dtype=torch.float64)
    else:
        first = series.first[:1].expand(values.shape[1])
        levels = torch.cat([first[None], values[series.observed]])
        elapsed = torch.tensor([0.0, *series.elapsed], dtype=torch.float64)
        times = elapsed[torch.cat([torch.tensor([True]), series.observed])]
    lags = variogram_lags(len(levels))
    distance = torch.stack([(times[lag:] - times[:-lag]).mean() for lag in lags])
    moved = [(levels[lag:] - levels[:-lag]).square().mean(0) for lag in lags]
    return distance, torch.stack(moved)
