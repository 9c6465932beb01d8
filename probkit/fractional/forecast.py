"""Predictive law of future values given parameter draws: a mixture of normals, one a draw.

The filter runs once for all draws; the state then moves over every gap without an update.
Cost: that of the filter with as many parameter points as there are draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.fractional.batch_filter import filter_batch
from probkit.fractional.likelihood import initial_state, make_step
from probkit.fractional.series import Series
from probkit.fractional.system import FractionalSystem

__all__ = ["forecast", "mixture_quantiles"]

_BISECTIONS = 60


def forecast(
    system: FractionalSystem, scale: Float[Tensor, " S"], series: Series, gaps: Sequence[float]
) -> tuple[Float[Tensor, "T S"], Float[Tensor, "T S"]]:
    """Means and standard deviations of observations after each gap (in steps), draw by draw."""
    pieces = filter_batch(system, series)
    C, _, _ = initial_state(system, series)
    mean, P = pieces.mean[0], pieces.covariance
    elapsed = series.elapsed[-1]
    means, variances = [], []
    for gap in gaps:
        step = make_step(system, C, gap, series.increments)
        elapsed += gap
        seen = gap if series.increments else elapsed
        b = torch.cat([step.b[..., :-1], torch.full_like(step.b[..., :1], seen)], -1)
        means.append((mean * b).sum(-1))
        variance = ((P * b[..., None, :]).sum(-1) * b).sum(-1) + step.CQC + system.noise
        variances.append(variance * scale.square())
        mean = mean * step.a
        P = P * (step.a[..., :, None] * step.a[..., None, :]) + step.Q
    return torch.stack(means), torch.stack(variances).sqrt()


def mixture_quantiles(
    mean: Float[Tensor, "T S"], sd: Float[Tensor, "T S"], levels: Sequence[float]
) -> Float[Tensor, "Q T"]:
    """Quantiles of equal mixtures of normals, by bisection of the distribution function."""
    found = []
    for level in levels:
        low, high = (mean - 12 * sd).amin(-1), (mean + 12 * sd).amax(-1)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            below = torch.special.ndtr((middle[:, None] - mean) / sd).mean(-1) < level
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        found.append((low + high) / 2)
    return torch.stack(found)
