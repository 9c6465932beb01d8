"""Does a fitted Hurst model reproduce its series: two statistics that other data give away.

Of a Gaussian process with stationary increments, both hardly depend on scale:

- the largest step, ``max |dy| / median |dy|``: a jump, an outlier or heavy tails raise it;
- the growth of the variogram from its first lag to a quarter of the series: a trend or a shift
  raises it, a level that reverts to a mean lowers it.

Source: posterior predictive checks, Gelman, Meng & Stern, Stat. Sinica 6 (1996).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.fractional.series import Series
from probkit.fractional.variogram import sample_variogram

__all__ = ["predictive_p"]


def predictive_p(series: Series, replicated: Float[Tensor, "T S"]) -> dict[str, float]:
    """Share of replicated series whose statistic exceeds that of the data; ties count half.

    Args:
        series: one series.
        replicated: series like it, one a column.
    """
    there = _statistics(series, replicated)
    here = _statistics(series, series.values.mT)
    return {
        name: float(((there[name] > own).double() + 0.5 * (there[name] == own)).mean())
        for name, own in here.items()
    }


def _statistics(series: Series, values: Float[Tensor, "T S"]) -> dict[str, Float[Tensor, " S"]]:
    seen = values[series.observed]
    if not series.increments:
        first = series.first[:1].expand(1, values.shape[1])
        seen = torch.cat([first, seen]).diff(dim=0)
    steps = seen.abs()
    growth = sample_variogram(series, values)[1]
    return {
        "largest step": steps.amax(0) / steps.median(0).values,
        "growth of the variogram": growth[-1] / growth[0],
    }
