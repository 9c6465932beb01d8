"""The Pyro model of a noisy fractional series, for ``Laplace``, ``NUTS`` and models of your own.

The path is integrated out exactly by the filter, so that the only unknowns are the parameters::

    hurst ~ U(.03, .97),  log sigma^2 flat,  log noise ratio ~ U,  log reversion ~ U
    y ~ N(0, covariance of noise and process)        (pyro.factor, through the filter)

The priors are those of the grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from probkit.fractional.grid import NOISE_RANGE, reversion_range
from probkit.fractional.likelihood import filter_quickly
from probkit.fractional.series import Series
from probkit.fractional.system import fractional_system
from probkit.statespace.fractional_tables import HURST_RANGE

__all__ = ["hurst_model", "series_log_likelihood"]

_WIDE = 10.0


def series_log_likelihood(
    series: Series,
    hurst: Tensor,
    log_scale: Tensor,
    log_noise: Tensor | None,
    log_reversion: Tensor | None,
) -> Tensor:
    """Exact log-likelihood summed over the series, differentiable in every parameter.

    Args:
        series: as prepared by ``prepare_series``.
        hurst, log_scale: Hurst index; logarithm of the sd of an increment over one step.
        log_noise: logarithm of the noise variance over that of an increment; None for no noise.
        log_reversion: logarithm of the reversion rate per step; None for none.
    """
    noise = torch.zeros_like(hurst) if log_noise is None else log_noise.exp()
    rate = None if log_reversion is None else log_reversion.exp()
    system = fractional_system(hurst, noise, rate, series.span)
    log_variance, quadratic = filter_quickly(system, series)
    number, count = len(series.values), int(series.observed.sum())
    constant = count * (math.log(2 * math.pi) + 2 * log_scale) + log_variance
    return -0.5 * (number * constant + quadratic.sum(0) * torch.exp(-2 * log_scale))


def hurst_model(series: Series, *, noise: bool, reversion: bool) -> Callable[[], None]:
    """The Pyro model of prepared series that share all parameters."""
    spread = torch.log(_typical(series))

    def model() -> None:
        def uniform(name: str, span: tuple[float, float]) -> Tensor:
            low, high = (spread.new_tensor(value) for value in span)
            return pyro.sample(name, dist.Uniform(low, high))

        hurst = uniform("hurst", HURST_RANGE)
        log_scale = pyro.sample("log_scale", dist.Normal(spread, _WIDE))
        log_noise = uniform("log_noise", NOISE_RANGE) if noise else None
        log_reversion = uniform("log_reversion", reversion_range(series)) if reversion else None
        value = series_log_likelihood(series, hurst, log_scale, log_noise, log_reversion)
        pyro.factor("series", value)

    return model


def _typical(series: Series) -> Tensor:
    """Spread of the values, or of their differences, as the centre of the prior of the scale."""
    values = series.values[:, series.observed]
    return (values if series.increments else values.diff()).std() + 1e-300
