"""Predictive law of future values given parameter draws: a mixture of normals, one a draw.

The state after the data moves over every gap without an update. Cost: K^2 a time and draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.fractional.likelihood import get_loadings, make_step
from probkit.fractional.system import FractionalSystem
from probkit.validation import check_levels

__all__ = ["EndState", "forecast", "mixture_quantiles", "some_levels"]

_BISECTIONS = 60


class EndState(NamedTuple):
    """State after the last observation, draw by draw.

    ``mean`` is (S, n), ``covariance`` (S, n, n) in units of the squared scale; ``elapsed`` are the
    steps since the first time, and ``increments`` tells whether these are observed.
    """

    mean: Tensor
    covariance: Tensor
    elapsed: float
    increments: bool


def forecast(
    system: FractionalSystem, scale: Float[Tensor, " S"], end: EndState, gaps: Sequence[float]
) -> tuple[Float[Tensor, "T S"], Float[Tensor, "T S"]]:
    """Means and standard deviations of observations after each gap (in steps), draw by draw."""
    mean, P, elapsed, increments = end
    C = get_loadings(system, increments)
    means, variances = [], []
    for gap in gaps:
        step = make_step(system, C, gap, increments)
        elapsed += gap
        seen = gap if increments else elapsed
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


def some_levels(quantiles: Sequence[float]) -> tuple[float, ...]:
    """Levels of quantiles, at least one.

    Raises:
        ConfigurationError: none, or one that is not strictly between 0 and 1.
    """
    levels = check_levels("quantiles", quantiles)
    if not levels:
        raise ConfigurationError(
            message("No level is given", where="quantiles", got="none", expected="at least one")
        )
    return levels
