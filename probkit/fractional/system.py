"""Noisy fractional series as a linear Gaussian state-space model in modal form.

Fractional Brownian motion, and the stationary fractional Ornstein-Uhlenbeck process (mean
reversion ``theta``), are weighted sums of Ornstein-Uhlenbeck processes that share one noise::

    dx = -theta x dt + dB_hat   =>   x = sum_k c_k Y_k + c_0 V,
    c_k = w_k g_k / (g_k - theta),  c_0 = -sum_k w_k theta / (g_k - theta),  V of rate theta

so that the state is diagonal and every transition exact, at any time step. Where the reversion and
a rate g_j nearly coincide these loadings grow without bound; with m their mean and h half their
difference, the pole pair is then replaced by two pairs around m,

    1 / ((s + m)^2 - h^2)  ~  a / ((s + m)^2 - d^2) + (1 - a) / ((s + m)^2 - 4 d^2),
    a = (4 - h^2 / d^2) / 3,

which is exact to the fourth power of d / m = 1/500 and has bounded loadings. The states of both
pairs are always there, with loadings of zero where no rate is close, so that the system's size
does not depend on values. Two static states go with the modes: the level, and the slope that
carries the power below the lowest rate. All is in units of the scale sigma and of one step: the
innovation variances are those of sigma = 1.
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

__all__ = ["CLOSE", "FractionalSystem", "fractional_system"]

CLOSE = 2e-3
"""relative distance of a rate and the reversion that counts as a coincidence"""


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
    gap = rates - theta
    close = gap.abs() < CLOSE * theta
    apart = torch.where(close, theta, gap)
    zero = torch.zeros_like(gap)
    direct = torch.where(close, zero, weights * rates / apart)
    shared = -torch.where(close, zero, weights * theta / apart).sum(-1, True)
    pairs, paired = _close_pairs(torch.where(close, weights, zero), theta, gap, close)
    rates = torch.cat([rates, theta, pairs], -1)
    loadings = torch.cat([direct, shared, paired], -1)
    # the static slope of the noise moves the process by slope / theta: part of the unknown level
    return FractionalSystem(rates, loadings, torch.zeros_like(slope), noise)


def _close_pairs(
    weights: Tensor, theta: Tensor, gap: Tensor, close: Tensor
) -> tuple[Tensor, Tensor]:
    """Rates and loadings (*batch, 4) of the two pairs around the mode that is close, if one is."""
    half = torch.where(close, gap / 2, torch.zeros_like(gap)).sum(-1, True)
    weight = weights.sum(-1, True)
    middle = theta + half
    d = CLOSE * middle
    inner = (4 - (half / d).square()) / 3
    near, far = weight * inner / (2 * d), weight * (1 - inner) / (4 * d)
    poles = torch.cat([middle + d, middle - d, middle + 2 * d, middle - 2 * d], -1)
    return poles, poles * torch.cat([near, -near, far, -far], -1)
