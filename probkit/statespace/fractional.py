"""Markov approximation of fractional Brownian motion: K Ornstein-Uhlenbeck processes, one noise.

``dY_k = -g_k Y_k dt + dW`` for all k with the same W, and::

    type I    B_hat(t) = sum_k w_k (Y_k(t) - Y_k(0)) + slope t,  Y(0) ~ N(0, [1 / (g_i + g_j)])
    type II   B_hat(t) = sum_k w_k Y_k(t),                       Y(0) = 0

Type I has stationary increments. With ``R_i = w_i sum_j w_j / (g_i + g_j)`` the covariance is::

    I    sum_i R_i (e^(-g_i |t-s|) - e^(-g_i t) - e^(-g_i s) + 1) + var(slope) t s
    II   sum_i R_i e^(-g_i |t-s|) - sum_ij w_i w_j e^(-g_i t - g_j s) / (g_i + g_j)

Transitions over any step are exact: ``Y <- e^(-gh) Y + N(0, Q)``,
``Q_ij = (1 - e^(-(g_i + g_j) h)) / (g_i + g_j)``.

Source: Daems et al., ICLR 2024, arXiv 2310.12975; law weights, slope and normalisation are ours.
Cost: K^2 a step.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import (
    ConfigurationError,
    DataError,
    ExtrapolationWarning,
    ShapeError,
    message,
)
from probkit.random import Seed, as_generator
from probkit.statespace.fractional_l2 import geometric_rates, l2_weights
from probkit.statespace.fractional_law import (
    fgn_density,
    frequencies,
    increment_density,
    kl_rate,
)
from probkit.statespace.fractional_tables import (
    law_weights,
    mvn_variance,
    slope_variance,
    table_steps,
)
from probkit.validation import as_real, check_choice, check_finite

__all__ = ["MarkovApproxFBM", "exact_step"]


class MarkovApproxFBM:
    """Fractional Brownian motion as a Gauss-Markov process.

    Args:
        hurst: Hurst index, a number or a tensor (...) of float64; derivatives pass through.
        num_steps: length of the sampled series in steps of ``dt``; chooses the table.
        dt: length of a step, in the unit of time.
        kind: "I" (Mandelbrot-Van Ness) or "II" (Riemann-Liouville, starts at 0 without a past).
        weights: "law" (the law of the increments, from tables; type I) or "l2" (the published
            closed form, closest path over the horizon).
        rates: (K,) per unit of time, for "l2"; by default eight from .1 / horizon to 10 / dt.
        horizon: of "l2"; by default ``num_steps * dt``.
        normalize: "unit" (variance t^2H) or "mvn" (V_H t^2H, the papers' scale). Type II is
            scaled by the same constant.
        ridge: of the solve for "l2".

    Attributes:
        rates: (K,).
        weights: (..., K).
        slope_variance: (...) of the static slope, 0 for "l2".
        relative_error: relative squared error of the path for "l2", None for "law".

    Raises:
        ConfigurationError: a Hurst index out of range, an unknown kind, weights or normalisation,
            or law weights of type II.
        NumericalError: rates too close together for "l2".

    Example:
        >>> process = MarkovApproxFBM(0.3, num_steps=100, dt=0.01)
        >>> times = torch.tensor([0.01, 1.0], dtype=torch.float64)
        >>> [round(float(v), 3) for v in process.variance(times)]
        [0.063, 0.995]
    """

    def __init__(
        self,
        hurst: float | Tensor,
        *,
        num_steps: int = 1024,
        dt: float = 1.0,
        kind: str = "I",
        weights: str = "law",
        rates: Tensor | None = None,
        horizon: float | None = None,
        normalize: str = "unit",
        ridge: float = 0.0,
    ) -> None:
        _check(num_steps, dt, kind, weights, rates, normalize)
        self._settings: dict[str, Any] = {
            "num_steps": num_steps,
            "dt": dt,
            "kind": kind,
            "weights": weights,
            "rates": rates,
            "horizon": horizon,
            "normalize": normalize,
            "ridge": ridge,
        }
        self.hurst = torch.as_tensor(hurst, dtype=torch.float64)
        self.kind, self.dt, self.num_steps = kind, float(dt), num_steps
        self.normalize = normalize
        self.relative_error: Tensor | None = None
        if weights == "law":
            step_rates, step_weights = law_weights(self.hurst, num_steps)
            slope = slope_variance(self.hurst, step_rates, step_weights)
            self.rates = step_rates / dt
            self.weights = step_weights * (dt ** (self.hurst - 0.5))[..., None]
            self.slope_variance = slope * dt ** (2 * self.hurst - 2)
        else:
            span = num_steps * dt if horizon is None else horizon
            given = geometric_rates(8, 0.1 / span, 10 / dt) if rates is None else rates
            self.rates = given.to(self.hurst)
            found = l2_weights(self.hurst, self.rates, span, kind=kind, ridge=ridge)
            self.weights, self.relative_error = found
            self.slope_variance = torch.zeros_like(self.hurst)
        if normalize == "unit":
            scale = mvn_variance(self.hurst)
            self.weights = self.weights / scale.sqrt()[..., None]
            self.slope_variance = self.slope_variance / scale

    def with_hurst(self, hurst: float | Tensor) -> MarkovApproxFBM:
        """The same approximation, with the same rates, of another Hurst index.

        Example:
            >>> process = MarkovApproxFBM(0.3, num_steps=100)
            >>> bool((process.with_hurst(0.7).rates == process.rates).all())
            True
        """
        return MarkovApproxFBM(hurst, **self._settings)

    @property
    def horizon(self) -> float:
        """Length of the paths that the weights were made for."""
        if self._settings["weights"] == "law":
            return table_steps(self.num_steps) * self.dt
        given = self._settings["horizon"]
        return self.num_steps * self.dt if given is None else float(given)

    def divergence(self, num_steps: int) -> Float[Tensor, "*batch"]:
        """Nats between ``num_steps`` increments of exact fBM and of this process (Whittle's form).

        What a likelihood of a series of that length loses by the approximation.

        Raises:
            ConfigurationError: type II, whose increments are not stationary.

        Example:
            >>> float(MarkovApproxFBM(0.3, num_steps=1000).divergence(1000)) < 0.01
            True
        """
        self._require_stationary()
        frequency, share = frequencies(num_steps)
        weights = self.weights * (self.dt ** (0.5 - self.hurst))[..., None]
        if self.normalize == "unit":
            weights = weights * mvn_variance(self.hurst).sqrt()[..., None]
        density = increment_density(self.rates * self.dt, weights, frequency)
        return num_steps * kl_rate(fgn_density(self.hurst, frequency), density, share)

    def warn_beyond(self, num_steps: int, dt: float) -> None:
        """Warn of paths that are longer than the weights allow: any (l2), or four times (law)."""
        allowed = 4 if self._settings["weights"] == "law" else 1
        span = num_steps * dt
        if span <= allowed * self.horizon * (1 + 1e-9):
            return
        own = max(1, round(span / self.dt))
        lost = [] if self.kind == "II" else self.divergence(own).reshape(-1).tolist()
        text = message(
            "The path is longer than the weights were made for",
            where="num_steps * dt",
            got=f"{span:g}",
            expected=f"<= {allowed * self.horizon:g}",
            causes=(f"{max(lost):.2g} nats from exact fBM over this span",) if lost else (),
            remedy="give the process num_steps and dt (or the horizon) of the path",
        )
        warnings.warn(text, ExtrapolationWarning, stacklevel=3)

    @property
    def initial_covariance(self) -> Float[Tensor, "K K"]:
        """Covariance of Y(0): stationary for type I, zero for type II."""
        stationary = 1 / (self.rates[:, None] + self.rates)
        return stationary if self.kind == "I" else torch.zeros_like(stationary)

    def covariance(self, times: Float[Tensor, " N"]) -> Float[Tensor, "*batch N N"]:
        """Covariance of ``B_hat`` at non-negative times."""
        gram = 1 / (self.rates[:, None] + self.rates)
        share = self.weights * (self.weights @ gram)
        t = times.to(self.rates)
        gaps = torch.exp(-self.rates * (t[:, None] - t).abs()[..., None])  # (N, N, K)
        near = (gaps * share[..., None, None, :]).sum(-1)
        decay = torch.exp(-self.rates * t[:, None])  # (N, K)
        if self.kind == "II":
            loaded = self.weights[..., None, :] * decay
            return near - loaded @ gram @ loaded.mT
        past = (decay * share[..., None, :]).sum(-1)
        static = share.sum(-1)[..., None, None]
        slope = self.slope_variance[..., None, None] * t[:, None] * t
        return near - past[..., :, None] - past[..., None, :] + static + slope

    def variance(self, times: Float[Tensor, " N"]) -> Float[Tensor, "*batch N"]:
        """Variance of ``B_hat`` at non-negative times, in N K^2."""
        gram = 1 / (self.rates[:, None] + self.rates)
        t = times.to(self.rates)
        decay = torch.exp(-self.rates * t[:, None])
        if self.kind == "II":
            share = self.weights * (self.weights @ gram)
            loaded = self.weights[..., None, :] * decay
            return share.sum(-1)[..., None] - ((loaded @ gram) * loaded).sum(-1)
        share = self.weights * (self.weights @ gram)
        moved = -2 * (torch.expm1(-self.rates * t[:, None]) * share[..., None, :]).sum(-1)
        return moved + self.slope_variance[..., None] * t.square()

    def increment_covariance(self, num_steps: int) -> Float[Tensor, "*batch num_steps"]:
        """Autocovariance of the increments over ``dt`` at lags 0 ... num_steps - 1 (type I).

        Raises:
            ConfigurationError: type II, whose increments are not stationary.
        """
        self._require_stationary()
        lags = torch.arange(num_steps + 1, dtype=torch.float64) * self.dt
        v = self.variance(lags)
        before = torch.cat([v[..., 1:2], v[..., : num_steps - 1]], -1)
        return (v[..., 1:] + before - 2 * v[..., :-1]) / 2

    def sample(
        self, times: Float[Tensor, " N"], num_paths: int, *, seed: Seed = 0
    ) -> tuple[Float[Tensor, "num_paths N"], Float[Tensor, "num_paths N K"]]:
        """Exact draws of ``B_hat`` and of the states Y at increasing times; one Hurst index.

        Raises:
            ShapeError: the process holds more than one Hurst index, or times are no vector.
            DataError: times that are negative, not finite or not sorted.
        """
        if self.hurst.dim():
            raise ShapeError(
                message("Paths are drawn for one Hurst index", got=tuple(self.hurst.shape))
            )
        times = _check_times(times)
        generator = as_generator(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        steps = torch.cat([times[:1], times.diff()]).to(self.rates)
        start = normal(num_paths, len(self.rates)) @ _root(self.initial_covariance).mT
        slope = self.slope_variance.sqrt() * normal(num_paths)
        state, states = start, []
        for step in steps:
            decay, noise = exact_step(self.rates, step)
            state = state * decay + normal(num_paths, len(self.rates)) @ _root(noise).mT
            states.append(state)
        path = torch.stack(states, 1)
        moved = path - start[:, None] if self.kind == "I" else path
        return moved @ self.weights + slope[:, None] * times.to(self.rates), path

    def _require_stationary(self) -> None:
        if self.kind == "II":
            raise ConfigurationError(
                message(
                    "The increments of type II fBM are not stationary",
                    where="kind",
                    remedy='use covariance(times), or kind="I"',
                )
            )


def exact_step(
    rates: Float[Tensor, " K"], step: Tensor | float
) -> tuple[Float[Tensor, "*step K"], Float[Tensor, "*step K K"]]:
    """Decay ``e^(-gh)`` and noise covariance ``Q`` of the states over a step of any length."""
    h = torch.as_tensor(step, dtype=rates.dtype, device=rates.device)
    total = rates[:, None] + rates
    return torch.exp(-rates * h[..., None]), -torch.expm1(-total * h[..., None, None]) / total


def _check_times(times: Tensor) -> Tensor:
    found = check_finite(as_real(times, "times"), "times")
    if found.dim() != 1:
        raise ShapeError(
            message("Times are a vector", where="times", got=tuple(found.shape), expected="(N,)")
        )
    if bool((found < 0).any()) or bool((found.diff() < 0).any()):
        raise DataError(
            message(
                "Times must be increasing and not negative",
                where="times",
                got=found[:5].tolist(),
                expected="0 <= t_1 <= t_2 <= ...",
                remedy="sort them, and count from the start of the process",
            )
        )
    return found


def _root(covariance: Tensor) -> Tensor:
    """A square root by eigenvalues: these matrices are semidefinite to rounding."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp_min(0).sqrt()


def _check(
    num_steps: int, dt: float, kind: str, weights: str, rates: Tensor | None, normalize: str
) -> None:
    choices = {"kind": ("I", "II"), "weights": ("law", "l2"), "normalize": ("unit", "mvn")}
    for name, value in (("kind", kind), ("weights", weights), ("normalize", normalize)):
        check_choice("choice", name, value, choices[name])
    if not (num_steps >= 1 and dt > 0):
        raise ConfigurationError(
            message("Steps and their length must be positive", got=(num_steps, dt))
        )
    if weights == "law" and (kind == "II" or rates is not None):
        raise ConfigurationError(
            message(
                "Law weights have their own rates and stationary increments",
                where="weights",
                got=f"kind={kind!r}, rates {'given' if rates is not None else 'not given'}",
                remedy='use weights="l2" for type II or for rates of your own',
            )
        )
