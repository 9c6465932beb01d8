"""Noisy fractional series as a linear Gaussian state-space model in modal form.

Fractional Brownian motion, and the stationary fractional Ornstein-Uhlenbeck process (mean
reversion ``theta``), are weighted sums of Ornstein-Uhlenbeck processes that share one noise::

    dx = -theta x dt + dB_hat   =>   x = sum_k c_k Y_k + c_0 V,
    c_k = w_k g_k / (g_k - theta),  c_0 = -sum_k w_k theta / (g_k - theta),  V of rate theta

so that the state is diagonal and every transition exact, at any time step. Two static states go
with the modes: the level, and the slope that carries the power below the lowest rate. All is in
units of the scale sigma and of one step: the innovation variances are those of sigma = 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.statespace.fractional_tables import (
    law_weights_unchecked,
    mvn_variance,
    slope_variance,
)

__all__ = ["FractionalSystem", "fractional_system"]

_APART = 1e-4


class FractionalSystem(NamedTuple):
    """Modes and static states, batched over parameters.

    ``rates`` of the modes, per step; ``loadings``, weights of the modes in the level; ``slope``,
    the variance of the static slope per step; ``noise``, the variance of the observation noise.
    """

    rates: Float[Tensor, "*batch M"]
    loadings: Float[Tensor, "*batch M"]
    slope: Float[Tensor, "*batch"]
    noise: Float[Tensor, "*batch"]


def fractional_system(
    hurst: Float[Tensor, "*batch"],
    noise: Float[Tensor, "*batch"],
    reversion: Float[Tensor, "*batch"] | None,
    num_steps: int,
) -> FractionalSystem:
    """The system for unit scale, differentiable in all parameters.

    Args:
        hurst: Hurst index.
        noise: variance of the noise, relative to that of an increment over one step.
        reversion: rate of mean reversion per step; None for fractional Brownian motion.
        num_steps: span of the series in steps; chooses the table.
    """
    rates, weights = law_weights_unchecked(hurst, num_steps)
    scale = mvn_variance(hurst)
    slope = slope_variance(hurst, rates, weights) / scale
    weights = weights / scale.sqrt()[..., None]
    rates = rates.expand(weights.shape)
    if reversion is None:
        return FractionalSystem(rates, weights, slope, noise)
    theta = reversion[..., None]
    # a mode whose rate coincides with the reversion would be a double pole: it is moved aside
    gap = rates - theta
    close = gap.abs() < _APART * theta
    gap = torch.where(close, torch.where(gap < 0, -_APART, _APART) * theta, gap)
    rates = theta + gap
    loadings = torch.cat([weights * rates / gap, -(weights * theta / gap).sum(-1, True)], -1)
    # the static slope of the noise moves the process by slope / theta: part of the unknown level
    return FractionalSystem(torch.cat([rates, theta], -1), loadings, torch.zeros_like(slope), noise)
