"""Nested Laplace: curves given hyperparameters, hyperparameters given the data.

With f the knots of all curves and further scalars, ``f = m + L(psi) z``, z standard normal::

    1. mode of  log p(y | f) - z'z / 2  at psi
    2. log p(y | f) ~ c + h'(f - m) - (f - m)'A (f - m) / 2  there, A by differences of gradients
    3. log p(y | psi) ~ c - log det(I + L'A L) / 2 + |R^-1 L'h|^2 / 2,  R R' = I + L'A L
    4. psi to the mode of that times its prior; again from 1 until psi rests

Both levels are Gaussian given the expansion of step 2, so hyperparameters are integrated out by
draws. Draws of f are weighed by ``p(y | f)`` over its expansion, which gives k-hat.
Source: Rue, Martino and Chopin, JRSS B 71 (2009). Cost: 2 F gradients a round, some rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.fractional.curves import Curve, prior_root
from probkit.infer import FitResult, Laplace
from probkit.infer.importance import WeightedDraws
from probkit.infer.loop import run_loop
from probkit.infer.mode_search import ModeSearch
from probkit.infer.protocols import State, StepInfo

__all__ = ["CurvePosterior", "Expansion"]

_START = (-1.2, -0.7)  # log l, log alpha
_DIFFERENCE = 1e-4
_AT_REST = 0.05
_MODE_TOLERANCE, _MODE_STEPS = 1e-3, 500
_HYPER_DRAWS = 200


@dataclass(frozen=True)
class Expansion:
    """``log p(y | f) ~ constant + h'd - d'A d / 2`` with d = f - m."""

    A: Float[Tensor, "F F"]
    h: Float[Tensor, " F"]
    constant: Float[Tensor, ""]

    def conditional(
        self, root: Float[Tensor, "*batch F F"]
    ) -> tuple[Float[Tensor, "*batch F"], Float[Tensor, "*batch F F"], Float[Tensor, "*batch"]]:
        """Mean of z, a root of its covariance, and log p(y | psi); NaN where R does not exist."""
        inner = root.mT @ self.A @ root
        eye = torch.eye(len(self.h), dtype=torch.float64)
        R, info = torch.linalg.cholesky_ex(eye + inner)
        R = torch.where((info == 0)[..., None, None], R, torch.nan)
        white = torch.linalg.solve_triangular(R, (root.mT @ self.h)[..., None], upper=False)
        inverse = torch.linalg.solve_triangular(R, eye.expand_as(R), upper=False)
        logdet = R.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        evidence = self.constant - logdet + white.square().sum((-2, -1)) / 2
        return (inverse.mT @ white)[..., 0], inverse.mT, evidence


class CurvePosterior:
    """Rounds of the scheme above, as a sweep.

    Args:
        log_likelihood: of f, with a first derivative.
        curves: unknown functions, first in f.
        extra: prior (mean, sd) of the scalars that follow.
    """

    def __init__(
        self,
        log_likelihood: Callable[[Float[Tensor, " F"]], Float[Tensor, ""]],
        curves: list[Curve],
        extra: list[tuple[float, float]],
    ) -> None:
        self._log_likelihood, self.curves = log_likelihood, curves
        self._extra = [sd for _, sd in extra]
        centres = [c.centre for c in curves for _ in range(c.num_knots)]
        self.centre = torch.tensor([*centres, *(mean for mean, _ in extra)], dtype=torch.float64)
        self.num_hyper = sum(0 if curve.is_constant else 2 for curve in curves)

    def initialize(self, generator: torch.Generator) -> State:
        """Nothing known yet: a flat expansion."""
        size = len(self.centre)
        hyper = torch.tensor(_START * (self.num_hyper // 2), dtype=torch.float64)
        zero = torch.zeros(size, dtype=torch.float64)
        return {
            "hyper": hyper,
            "A": torch.zeros(size, size, dtype=torch.float64),
            "h": zero,
            "constant": torch.tensor(0.0, dtype=torch.float64),
            "clamped": torch.tensor(0.0, dtype=torch.float64),
            "mode": self.centre,
        }

    def sweep(self, state: State, generator: torch.Generator) -> tuple[State, StepInfo]:
        """One round."""
        root = prior_root(self.curves, state["hyper"], self._extra)
        mean, spread, _ = self.expansion(state).conditional(root)
        density = _Knots(self, root, mean, spread)
        search = ModeSearch(density, _MODE_TOLERANCE, newton=False)
        outcome = run_loop(
            search.step, search.initialize, max_steps=_MODE_STEPS, generator=generator
        )
        mode = density.knots(outcome.state["flat"])
        found = self._expand(mode)
        hyper = state["hyper"]
        if self.num_hyper:
            fitted = self._hyper_search(self.expansion(found), hyper, draws=0)
            hyper = fitted.state["flat"]
        moved = float((hyper - state["hyper"]).abs().max()) if self.num_hyper else 0.0
        evidence = self.log_density(hyper, self.expansion(found))
        metrics = {"moved": moved, "mode_steps": float(outcome.num_steps)}
        done = moved < _AT_REST
        return {**found, "hyper": hyper}, StepInfo(float(evidence), done, metrics=metrics)

    def draw(
        self, state: State, num_samples: int, num_weighted: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, WeightedDraws, dict[str, float]]:
        """Draws of f (S, F) and psi (S, H), weighted draws of f, and figures."""
        expansion = self.expansion(state)
        hyper, figures = state["hyper"][None], {}
        if self.num_hyper:
            seed = int(torch.randint(2**31, (), generator=generator))
            fitted = self._hyper_search(expansion, state["hyper"], draws=1000, seed=seed)
            assert fitted.importance is not None
            hyper = fitted.importance.sample(_HYPER_DRAWS, generator)["hyper"]
            figures = {
                "hyper_khat": float(fitted.diagnostics["khat"]),
                "log_evidence": float(fitted.diagnostics["log_evidence"]),
            }
        else:
            figures = {"log_evidence": float(self.log_density(state["hyper"], expansion))}
        root = prior_root(self.curves, hyper, self._extra)
        mean, spread, _ = expansion.conditional(root)

        def some(number: int) -> tuple[Tensor, Tensor]:
            pick = torch.randint(len(hyper), (number,), generator=generator)
            size = (number, len(self.centre), 1)
            noise = torch.randn(size, generator=generator, dtype=torch.float64)
            z = mean[pick] + (spread[pick] @ noise)[..., 0]
            return self.centre + (root[pick] @ z[..., None])[..., 0], hyper[pick]

        weighted, _ = some(num_weighted)
        with torch.no_grad():
            exact = torch.stack([self._log_likelihood(f) for f in weighted])
        away = weighted - self.centre
        bent = ((away @ expansion.A) * away).sum(-1) / 2
        log_weights = exact - (expansion.constant + away @ expansion.h - bent)
        draws = WeightedDraws({"knots": weighted}, log_weights)
        return *some(num_samples), draws, figures

    def expansion(self, state: State) -> Expansion:
        """The expansion that a state holds."""
        return Expansion(state["A"], state["h"], state["constant"])

    def log_density(self, hyper: Tensor, expansion: Expansion) -> Tensor:
        """Log of p(y | psi) p(psi)."""
        _, _, evidence = expansion.conditional(prior_root(self.curves, hyper, self._extra))
        position = 0
        for curve in self.curves:
            width = 0 if curve.is_constant else 2
            evidence = evidence + curve.log_prior(hyper[..., position : position + width])
            position += width
        return evidence

    def value_and_gradient(self, knots: Tensor) -> tuple[Tensor, Tensor]:
        """Log-likelihood of f and its gradient."""
        with torch.enable_grad():
            f = knots.detach().requires_grad_()
            value = self._log_likelihood(f)
            (gradient,) = torch.autograd.grad(value, f)
        return value.detach(), gradient

    def _expand(self, mode: Tensor) -> State:
        """Step 2; directions in which the likelihood is convex count as flat."""
        value, gradient = self.value_and_gradient(mode)
        rows = []
        for unit in torch.eye(len(mode), dtype=torch.float64):
            _, above = self.value_and_gradient(mode + _DIFFERENCE * unit)
            _, below = self.value_and_gradient(mode - _DIFFERENCE * unit)
            rows.append((below - above) / (2 * _DIFFERENCE))
        H = torch.stack(rows)
        eigenvalues, vectors = torch.linalg.eigh((H + H.mT) / 2)
        A = (vectors * eigenvalues.clamp_min(0)) @ vectors.mT
        away = mode - self.centre
        h = A @ away + gradient
        constant = value - h @ away + away @ A @ away / 2
        clamped = -eigenvalues.clamp_max(0).sum() / eigenvalues.abs().sum()
        return {"A": A, "h": h, "constant": constant, "clamped": clamped, "mode": mode}

    def _hyper_search(
        self, expansion: Expansion, start: Tensor, draws: int, seed: int = 0
    ) -> FitResult:
        engine = Laplace(num_posterior_samples=1, num_diagnostic_samples=draws, tolerance=1e-4)
        return engine.fit(_Hyper(self, expansion, start), seed=seed)


class _Knots:
    """Negative log posterior of f at fixed psi, as a function of flat: z = mean + spread flat."""

    def __init__(self, model: CurvePosterior, root: Tensor, mean: Tensor, spread: Tensor) -> None:
        self._model, self._root, self._mean, self._spread = model, root, mean, spread

    def knots(self, flat: Tensor) -> Tensor:
        return self._model.centre + self._root @ (self._mean + self._spread @ flat)

    def initial(self, generator: torch.Generator) -> Tensor:
        return torch.zeros_like(self._mean)

    def value_and_gradient(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        z = self._mean + self._spread @ flat
        value, gradient = self._model.value_and_gradient(self.knots(flat))
        return z @ z / 2 - value, self._spread.mT @ (z - self._root.mT @ gradient)

    def curvature(self, flat: Tensor) -> Tensor:
        return torch.eye(len(flat), dtype=flat.dtype)  # flat is white to the last expansion

    def values(self, flat: Tensor) -> Tensor:
        return torch.stack([self.value_and_gradient(one)[0] for one in flat])

    def sites(self, flat: Tensor) -> dict[str, Tensor]:
        return {"flat": flat}


class _Hyper:
    """Negative log posterior of psi."""

    def __init__(self, model: CurvePosterior, expansion: Expansion, start: Tensor) -> None:
        self._model, self._expansion, self._start = model, expansion, start

    def initial(self, generator: torch.Generator) -> Tensor:
        return self._start

    def value_and_gradient(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            hyper = flat.detach().requires_grad_()
            value = self._value(hyper)
            (gradient,) = torch.autograd.grad(value, hyper)
        return value.detach(), gradient

    def curvature(self, flat: Tensor) -> Tensor:
        found: Tensor = torch.autograd.functional.hessian(self._value, flat)
        return found

    def values(self, flat: Tensor) -> Tensor:
        found = self._value(flat)
        return torch.where(found.isnan(), torch.inf, found)

    def sites(self, flat: Tensor) -> dict[str, Tensor]:
        return {"hyper": flat}

    def _value(self, hyper: Tensor) -> Tensor:
        return -self._model.log_density(hyper, self._expansion)
