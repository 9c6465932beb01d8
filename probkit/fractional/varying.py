"""A measured series whose Hurst index and scale change in time, as input of the filter.

With the modes Y of the law table, their weights ``w_n`` (times the scale) for the Hurst index of
step n, the static slope s of standard deviation ``v_n``, step lengths ``h_n`` and times ``t_n``
since the origin, the level ``x`` of ``varying_filter`` moves by::

    increment   w_n'(Y_n - Y_(n-1)) + v_n h_n s
    level       w_n'(Y_n - Y_0) - w_(n-1)'(Y_(n-1) - Y_0) + (v_n t_n - v_(n-1) t_(n-1)) s

so that its loadings are ``(a - 1) w_n``, or ``a w_n - w_(n-1)`` with ``w_(n-1) - w_n`` on the
static states Y_0. The first observed level has a flat prior; what it leaves is its noise.

The table's slope makes up the variance of one step, which changes sign with the error of the fit
and so has a root with kinks in H. Here ``v(H)^2`` is the power of unit fractional noise below the
lowest rate g, in closed form and smooth, brought in between H = .55 and .75::

    v(H)^2 = sin(pi H) Gamma(2H + 1) / pi * g^(2 - 2H) / (2 - 2H)

It agrees with the table's within a tenth where it matters, in a variance that shows in one number.
Cost: 20 K multiplications a step for weights and slopes, and the filter.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from probkit.fractional.series import Series
from probkit.fractional.varying_filter import VaryingFilter, filter_varying
from probkit.statespace.fractional_tables import law_weights_unchecked, mvn_variance

__all__ = ["VaryingSeries", "slope_deviation", "split_gaps", "step_ends"]

_FADE = (0.55, 0.2)
"""where the slope begins, and over which range of H it comes in"""


class VaryingSeries:
    """Likelihood of a series, given the Hurst index and the scale at every step.

    Args:
        series: as prepared by ``prepare_series``.
        definition: "increment" or "level".

    Attributes:
        points: times in the user's unit where Hurst index and scale are read: the middles of the
            steps, or for "level" the first time and the ends of the steps.
    """

    def __init__(self, series: Series, definition: str) -> None:
        self.series, self.definition = series, definition
        ends = step_ends(series)
        lengths = series.gaps * series.step
        self.points = ends - lengths / 2
        if definition == "level":
            self.points = torch.cat([ends[:1] - lengths[:1], ends])
        self._elapsed = series.gaps.cumsum(0)
        half = torch.tensor(0.5, dtype=torch.float64)
        self._rates, _ = law_weights_unchecked(half, series.span)
        self._problem = self._fixed()
        self._decay = self._problem.a[self._problem.index, : len(self._rates)]

    def log_likelihood(
        self,
        hurst: Float[Tensor, " P"],
        log_scale: Float[Tensor, " P"],
        noise: Float[Tensor, ""],
    ) -> Float[Tensor, ""]:
        """Exact, summed over the series; first derivatives in all arguments.

        Args:
            hurst: at the points.
            log_scale: logarithm of the sd of an increment over one step, at the points.
            noise: variance of the observation noise.
        """
        u, g = self._loadings(hurst, log_scale)
        variance = torch.zeros_like(noise) if self.series.increments else noise
        log_variance, quadratic = filter_varying(self._problem, u, g, noise, variance)
        number, count = len(self.series.values), int(self.series.observed.sum())
        constant = count * math.log(2 * math.pi) + log_variance
        return -0.5 * (number * constant + quadratic.sum())

    def _loadings(self, hurst: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
        rates, weights = law_weights_unchecked(hurst, self.series.span)
        weights = weights * (log_scale.exp() / mvn_variance(hurst).sqrt())[:, None]
        slope = slope_deviation(hurst, rates[0]) * log_scale.exp()
        if self.definition == "increment":
            u = torch.cat([(self._decay - 1) * weights, (slope * self.series.gaps)[:, None]], -1)
            return u, pad(weights, (0, 1))
        before, now = weights[:-1], weights[1:]
        tilt = (slope * pad(self._elapsed, (1, 0))).diff()
        u = torch.cat([self._decay * now - before, before - now, tilt[:, None]], -1)
        return u, pad(now, (0, len(rates) + 1))

    def _fixed(self) -> VaryingFilter:
        series, rates = self.series, self._rates
        gaps, index = torch.unique(series.gaps, return_inverse=True)
        total = rates[:, None] + rates
        static = 1 if self.definition == "increment" else len(rates) + 1
        a = pad(torch.exp(-gaps[:, None] * rates), (0, static), value=1.0)
        Q = pad(-torch.expm1(-total * gaps[:, None, None]) / total, (0, static, 0, static))
        gram = 1 / total
        if static > 1:
            gram = torch.cat([gram, gram]).repeat(1, 2)
        covariance = torch.block_diag(gram, torch.ones(1, 1, dtype=torch.float64))
        return VaryingFilter(
            a,
            Q,
            index,
            covariance,
            series.first,
            series.values,
            series.observed,
            not series.increments,
        )


def slope_deviation(
    hurst: Float[Tensor, "*batch"], lowest: Float[Tensor, ""]
) -> Float[Tensor, "*batch"]:
    """Standard deviation of the static slope per step, for unit increments; smooth in H."""
    power = 2 - 2 * hurst
    share = torch.sin(torch.pi * hurst) * torch.exp(torch.lgamma(3 - power)) / torch.pi
    x = ((hurst - _FADE[0]) / _FADE[1]).clamp(0, 1)
    fade = x**3 * (10 - 15 * x + 6 * x * x)
    return (share * lowest**power / power).sqrt() * fade


def step_ends(series: Series) -> Float[Tensor, " N"]:
    """Ends of the steps in the user's unit of time."""
    elapsed = series.gaps.cumsum(0)
    return series.last_time + (elapsed - elapsed[-1]) * series.step


def split_gaps(series: Series, longest: float) -> Series:
    """Levels with gaps longer than ``longest`` (user's unit) split into equal steps.

    The Hurst index of "increment" is constant over a step; where data are rare it would not follow.
    """
    parts = torch.ceil(series.gaps * series.step / longest - 1e-9).clamp_min(1).long()
    if series.increments or bool((parts == 1).all()):
        return series
    last = parts.cumsum(0) - 1
    observed = torch.zeros(int(parts.sum()), dtype=torch.bool)
    observed[last] = series.observed
    values = torch.zeros(len(series.values), len(observed), dtype=series.values.dtype)
    values[:, last] = series.values
    gaps = torch.repeat_interleave(series.gaps / parts, parts)
    before = series.elapsed[-1] - float(series.gaps.sum())
    elapsed = (before + gaps.cumsum(0)).tolist()
    return replace(series, values=values, observed=observed, gaps=gaps, elapsed=elapsed)
