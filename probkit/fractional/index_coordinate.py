"""A coordinate in which Hurst index and noise are all but independent, for samplers.

A series that noise could explain as well as roughness has a bent posterior: where there is little
noise the index does not depend on it, where there is much a rougher path is a smoother one with
more noise, and a step that suits one arm fails in the other. With m(l) the conditional mean of the
index's logit at log noise l, found on a grid, the unknown is the distance to it::

    hurst = low + (high - low) sigmoid(m(log_noise) + offset),   offset ~ Logistic(-m, 1)

which leaves the prior, hurst ~ U(low, high) given the noise, what it is. m is a natural cubic
spline, so that second derivatives exist. Cost: one pass of the filter over the series for all
points of the grid at once.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.fractional.grid import NOISE_RANGE, grid_log_density
from probkit.fractional.series import Series
from probkit.statespace.fractional_tables import HURST_RANGE

__all__ = ["IndexCoordinate"]

_NUM_INDICES, _NUM_NOISES = 121, 15


class IndexCoordinate:
    """The index as a function of the log noise and an offset.

    Args:
        series: the data, all of the same parameters.
        reversion: whether the level reverts to its mean; the rate is summed out.
    """

    def __init__(self, series: Series, *, reversion: bool) -> None:
        from scipy.interpolate import CubicSpline

        unit = (torch.arange(_NUM_INDICES, dtype=torch.float64) + 0.5) / _NUM_INDICES
        knots = torch.linspace(*NOISE_RANGE, _NUM_NOISES, dtype=torch.float64)
        index = HURST_RANGE[0] + (HURST_RANGE[1] - HURST_RANGE[0]) * unit
        density = grid_log_density(series, index, knots, reversion=reversion)
        mean = torch.softmax(density, 0).mT @ torch.logit(unit)
        spline = CubicSpline(knots.numpy(), mean.numpy(), bc_type="natural")
        cubic, _, slope, value = torch.as_tensor(spline.c)
        self._knots, self._start = knots[:-1], (value[0], slope[0])
        self._bends = cubic.diff(prepend=cubic.new_zeros(1))

    def centre(self, log_noise: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        """Conditional mean of the logit of the index, on the unit interval, at a log noise."""
        value, slope = self._start
        # truncated powers: no look-up by value, which graphs of a model could not hold
        powers = torch.relu(log_noise[..., None] - self._knots).pow(3)
        return value + slope * (log_noise - self._knots[0]) + powers @ self._bends

    def hurst(
        self, log_noise: Float[Tensor, "*S"], offset: Float[Tensor, "*S"]
    ) -> Float[Tensor, "*S"]:
        """The index at a log noise and an offset."""
        low, high = HURST_RANGE
        return low + (high - low) * torch.sigmoid(self.centre(log_noise) + offset)
