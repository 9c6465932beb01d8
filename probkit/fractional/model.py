"""The Pyro model of a noisy fractional series, for ``Laplace``, ``NUTS`` and models of your own.

The path is integrated out exactly by the filter, so that the only unknowns are the parameters::

    hurst ~ U(.03, .97),  log sigma flat,  log noise ratio ~ U,  log reversion ~ U
    y ~ N(0, covariance of noise and process)        (pyro.factor, through the filter)

The priors are those of the grid. With ``q`` the sum of squares over N observations, the scale is
written as ``log sigma = log(q / N) / 2 + offset``: the likelihood is then a product of one factor
in the offset and one in the other parameters, and no sampler has to follow the ridge between
scale, index and noise. The offset's normal prior of sd 10 stands for a flat one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor

from probkit.fractional.batch_filter import filter_batch
from probkit.fractional.grid import NOISE_RANGE, reversion_range
from probkit.fractional.index_coordinate import IndexCoordinate
from probkit.fractional.native_system import quick_system
from probkit.fractional.quick_filter import filter_quickly
from probkit.fractional.series import Series
from probkit.fractional.system import FractionalSystem
from probkit.statespace.fractional_tables import HURST_RANGE

__all__ = ["hurst_model", "log_scale", "series_log_likelihood"]

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

    Example:
        >>> from probkit.fractional import prepare_series
        >>> walk = torch.tensor([0.0, 1.0, 0.0, 1.0, 2.0, 1.0, 2.0, 3.0, 2.0])
        >>> series = prepare_series(walk, None, "levels")
        >>> zero = torch.zeros((), dtype=torch.float64)
        >>> found = series_log_likelihood(series, zero + 0.5, zero, None, None)  # 8 unit increments
        >>> abs(float(found) + 4 * (math.log(2 * math.pi) + 1)) < 1e-3
        True
    """
    system = _system(series, hurst, log_noise, log_reversion)
    deviance = filter_quickly(system, series, torch.exp(-2 * log_scale))
    count = len(series.values) * series.num_observed
    return -0.5 * (count * (math.log(2 * math.pi) + 2 * log_scale) + deviance)


def hurst_model(
    series: Series, *, noise: bool, reversion: bool, coordinate: IndexCoordinate | None = None
) -> Callable[[], None]:
    """The Pyro model of prepared series that share all parameters.

    Its sites are ``hurst``, ``scale_offset`` and, where asked for, ``log_noise`` and
    ``log_reversion``; :func:`log_scale` turns the offset into the scale. With a coordinate, which
    needs noise, the unknown is ``hurst_offset`` and ``hurst`` a deterministic site.

    Example:
        >>> from probkit import fit
        >>> from probkit.fractional import prepare_series
        >>> from probkit.infer import MAP
        >>> from probkit.statespace.fractional_noise import sample_fgn
        >>> series = prepare_series(sample_fgn(0.3, 500, 1, seed=0)[0], None, "increments")
        >>> found = fit(hurst_model(series, noise=False, reversion=False), engine=MAP())
        >>> abs(float(found.posterior.point()["hurst"]) - 0.3) < 0.06
        True
    """
    count = len(series.values) * series.num_observed
    unit = series.values.new_ones(())

    def model() -> None:
        def uniform(name: str, span: tuple[float, float]) -> Tensor:
            low, high = (unit * value for value in span)
            return pyro.sample(name, dist.Uniform(low, high))

        log_noise = uniform("log_noise", NOISE_RANGE) if noise else None
        if coordinate is None or log_noise is None:
            hurst = uniform("hurst", HURST_RANGE)
        else:
            prior = dist.Logistic(-coordinate.centre(log_noise), unit)
            value = coordinate.hurst(log_noise, pyro.sample("hurst_offset", prior))
            hurst = pyro.deterministic("hurst", value)
        offset = pyro.sample("scale_offset", dist.Normal(0 * unit, _WIDE))
        log_reversion = uniform("log_reversion", reversion_range(series)) if reversion else None
        system = _system(series, hurst, log_noise, log_reversion)
        deviance = filter_quickly(system, series, None)
        constant = math.log(2 * math.pi / count)
        spread = constant + 2 * offset + torch.exp(-2 * offset)
        pyro.factor("series", -0.5 * (deviance + count * spread))

    return model


def log_scale(series: Series, draws: Mapping[str, Float[Tensor, "*S"]]) -> Float[Tensor, "*S"]:
    """The scale that goes with draws of the sites of :func:`hurst_model`."""
    flat = {name: value.reshape(-1) for name, value in draws.items()}
    rest = (flat.get(name) for name in ("log_noise", "log_reversion"))
    found = filter_batch(_system(series, flat["hurst"], *rest), series)
    count = len(series.values) * series.num_observed
    scale = 0.5 * torch.log(found.quadratic.sum(0) / count) + flat["scale_offset"]
    return scale.reshape(draws["hurst"].shape)


def _system(
    series: Series, hurst: Tensor, log_noise: Tensor | None, log_reversion: Tensor | None
) -> FractionalSystem:
    noise = torch.zeros_like(hurst) if log_noise is None else log_noise.exp()
    rate = None if log_reversion is None else log_reversion.exp()
    return quick_system(hurst, noise, rate, series.span)
