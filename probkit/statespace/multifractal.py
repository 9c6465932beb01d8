"""Multifractional Brownian motion as a Gauss-Markov process: a Hurst index that changes in time.

The modes of ``fractional`` do not know H, only their weights do. With ``dY_k = -g_k Y_k dt +
dW``, ``w(H)`` the weights, and ``v(H)`` the standard deviation of the static slope s::

    level       B(t)  = w(H(t))' (Y(t) - Y(0)) + v(H(t)) t s
    increment   dX(t) = sum_k w_k(H(t)) dY_k + v(H(t)) s dt

(type II: Y(0) = 0, no slope). The first has the variance ``t^(2 H(t))`` of multifractional Brownian
motion and, where H moves, an extra drift ``w'(H) H'(t) (Y(t) - Y(0))`` that moves the whole level;
the second adds up local increments, whose law depends on H nearby only. H is held constant over
each step of ``increment``, at its value in the middle, so the error is of second order in the step.

Why law weights may be mixed over H, though each is fitted to the law of its own increments alone:
their transfer functions ``sum_k w_k iw / (iw + g_k)`` have all zeros and poles in the left half
plane, as that of the causal kernel has, so that their modulus fixes their phase, and with it the
covariance between different H. The offset Y(0) of type I is needed in ``level``: without it the
slowest modes, whose variance is that of a horizon and not of a step, would leave a spurious term
``(w(H(t)) - w(H(0)))' Y(0)``. Its origin is t = 0 for every H.

Source: definitions as in Daems et al., ICLR 2024, arXiv 2310.12975; ``level`` is multifractional
Brownian motion (Peltier and Levy Vehel, INRIA RR-2645, 1995). Cost: K^2 a step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.random import Seed, as_generator
from probkit.statespace.fractional import MarkovApproxFBM
from probkit.statespace.multifractal_law import hurst_points

__all__ = ["MultifractionalBM"]


class MultifractionalBM:
    """Brownian motion of a time-varying Hurst index, by Ornstein-Uhlenbeck modes.

    Args:
        hurst: function of times (N,) to Hurst indices (N,), in the range of the weights.
        definition: "increment" or "level"; they are different processes.
        num_steps, dt, kind, weights, rates, horizon, normalize, ridge: as of
            :class:`~probkit.statespace.fractional.MarkovApproxFBM`, for every value of H.

    Raises:
        ConfigurationError: an unknown definition, or what ``MarkovApproxFBM`` refuses.

    Example:
        >>> process = MultifractionalBM(lambda t: 0.3 + 0.4 * t, num_steps=100, dt=0.01)
        >>> times = torch.linspace(0.01, 1, 100, dtype=torch.float64)
        >>> process.sample(times, 3).shape
        torch.Size([3, 100])
    """

    def __init__(
        self,
        hurst: Callable[[Tensor], Tensor],
        *,
        definition: str = "increment",
        **settings: Any,
    ) -> None:
        hurst_points(torch.ones(1), definition)
        self.hurst, self.definition = hurst, definition
        self._modes = MarkovApproxFBM(0.5, **settings)

    @property
    def rates(self) -> Float[Tensor, " K"]:
        """Rates of the modes, per unit of time."""
        return self._modes.rates

    def loadings(
        self, times: Float[Tensor, " N"]
    ) -> tuple[Float[Tensor, "N K"], Float[Tensor, " N"]]:
        """Weights of the modes and standard deviation of the slope that belong to each time.

        Raises:
            ConfigurationError: times that do not increase from above 0, or a Hurst index that is
                out of range or of another shape.
        """
        points = hurst_points(times.to(self.rates), self.definition)
        values = self.hurst(points)
        if values.shape != points.shape:
            raise ConfigurationError(
                message(
                    "The Hurst index must be a function of times",
                    where="hurst",
                    got=tuple(values.shape),
                    expected=tuple(points.shape),
                )
            )
        fixed = self._modes.with_hurst(values)
        return fixed.weights, fixed.slope_variance.clamp_min(0).sqrt()

    def covariance(self, times: Float[Tensor, " N"]) -> Float[Tensor, "N N"]:
        """Covariance at increasing positive times, in closed form; N^2 K."""
        t = times.to(self.rates)
        weights, slope = self.loadings(t)
        before = torch.cat([t.new_zeros(1), t[:-1]])
        start = torch.zeros_like(t)
        first = start if self.definition == "level" else before
        reach = t - first
        found = reach[:, None] * reach * slope[:, None] * slope
        for sign, left in ((1, t), (-1, first)):
            for other, right in ((1, t), (-1, first)):
                found = found + sign * other * self._moment(weights, left, right)
        return found if self.definition == "level" else found.cumsum(0).cumsum(1)

    def sample(
        self, times: Float[Tensor, " N"], num_paths: int, *, seed: Seed = 0
    ) -> Float[Tensor, "num_paths N"]:
        """Exact draws at increasing positive times."""
        t = times.to(self.rates)
        weights, slope = self.loadings(t)
        generator = as_generator(seed)
        with_start = torch.cat([t.new_zeros(1), t])
        _, states = self._modes.sample(with_start, num_paths, seed=generator)
        tilt = torch.randn(num_paths, 1, generator=generator, dtype=torch.float64) * slope
        if self.definition == "level":
            moved = states[:, 1:] - states[:, :1]
            return (moved * weights).sum(-1) + tilt * t
        return ((states.diff(dim=1) * weights).sum(-1) + tilt * with_start.diff()).cumsum(-1)

    def _moment(self, weights: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """``E[w_n'Y(left_n) Y(right_m)'w_m]``, (N, N)."""
        g = self.rates
        gram = 1 / (g[:, None] + g)
        later = left[:, None] >= right
        lag = (left[:, None] - right).abs()
        decay = torch.exp(-g * lag[..., None])  # (N, N, K)
        share = weights @ gram  # of the earlier one
        forward = (decay * weights[:, None] * share).sum(-1)
        backward = (decay * weights * share[:, None]).sum(-1)
        found = torch.where(later, forward, backward)
        if self._modes.kind == "I":
            return found
        a = weights * torch.exp(-g * left[:, None])
        b = weights * torch.exp(-g * right[:, None])
        return found - a @ gram @ b.mT
