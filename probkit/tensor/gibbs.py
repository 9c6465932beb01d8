"""Blocked Gibbs sampling: the referee of the variational fit.

Conditionally on everything else each block has an exact draw: the paths of one mode are a Markov
Gaussian process with Gaussian sites, (W, b) is Gaussian, tau and the Student-t weights are Gamma.
Kernel hyper-parameters, slice precisions and degrees of freedom stay at the variational fit's
values, so that both describe one posterior. Chains start from draws of that fit, and compare
f, never factors: these are determined up to sign, order and scale.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.infer.registry import register
from probkit.statespace.interpolation import interpolate
from probkit.statespace.sampling import sample_posterior
from probkit.statespace.types import Posterior
from probkit.tensor.entries import locate
from probkit.tensor.posterior import TuckerPosterior
from probkit.tensor.variational import TuckerVariational

__all__ = ["TuckerDraws", "TuckerGibbs"]

State = dict[str, Tensor]
_SHAPE0 = _RATE0 = 1e-3


class TuckerGibbs:
    """The ``GibbsModel`` of a fitted functional Tucker model with Gaussian or Student-t noise.

    Args:
        problem: coordinate updates on the entries.
        fitted: state of the variational fit, which gives hyper-parameters and starts.
    """

    def __init__(self, problem: TuckerVariational, fitted: State) -> None:
        self.problem, self.fitted = problem, fitted
        with torch.no_grad():
            modes = range(problem.entries.num_modes)
            self._chains = [problem.mode(fitted, k).stacked() for k in modes]

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> State:
        """A draw from the variational posterior."""
        fitted, state = self.fitted, {}
        for k in range(len(self._chains)):
            mean, covariance = fitted[f"mode{k}.mean"], fitted[f"mode{k}.covariance"]
            sd = torch.diagonal(covariance, dim1=-2, dim2=-1).clamp_min(0).sqrt()
            state[f"path{k}"] = mean + sd * _normal(mean, generator)
        state["weights"] = fitted["core.mean"].clone()
        state["tau"] = self.problem.likelihood.precision(fitted).clone()
        if "local.weights" in fitted:
            state["local"] = fitted["local.weights"].clone()
        return state

    @torch.no_grad()
    def gibbs_step(self, state: State, generator: torch.Generator) -> State:
        """All blocks once."""
        problem, new, sums = self.problem, dict(state), None
        for k, (transitions, H) in enumerate(self._chains):
            body = self._body(new)
            sums = problem.sums(body, k)
            sites = problem.sites(body, k, sums)
            new[f"path{k}"] = sample_posterior(transitions, H, sites, 1, generator)[0]
        assert sums is not None
        body = self._body(new)
        normal, vector, moments = problem.normal_equations(body, len(self._chains) - 1, sums)
        prior = torch.cat([problem.weight_precision(body), vector.new_full((1,), 1e-2)])
        factor = torch.linalg.cholesky(new["tau"] * normal + torch.diag(prior))
        mean = torch.cholesky_solve(new["tau"] * vector[:, None], factor)[:, 0]
        noise = _normal(mean, generator)[:, None]
        new["weights"] = mean + torch.linalg.solve_triangular(factor.mT, noise, upper=True)[:, 0]
        body = self._body(new)
        squares = problem.sum_squares(body, normal, vector, moments).clamp_min(0)
        count = problem.entries.num_entries
        new["tau"] = _gamma(_SHAPE0 + count / 2, _RATE0 + 0.5 * squares, generator)
        if "local" in new:
            f, _ = problem.entry_moments(self._body(new))
            df = self.fitted["local.df"]
            scaled = new["tau"] * (problem.entries.targets - f).square()
            new["local"] = _gamma(float((df + 1) / 2), (df + scaled) / 2, generator)
        return new

    def draw(self, state: State) -> dict[str, Tensor]:
        """Paths of the states on the grids, weights with the intercept, noise precision."""
        return {name: value for name, value in state.items() if name != "local"}

    def settings(self) -> dict[str, Any]:
        """For provenance."""
        return {"model": "functional Tucker", "structure": self.problem.structure}

    def _body(self, state: State) -> State:
        """The draw in the form of a variational state without uncertainty."""
        body = dict(self.fitted)
        for k, (_, H) in enumerate(self._chains):
            rows = state[f"path{k}"] @ H.mT
            body[f"mode{k}.row_mean"] = rows
            body[f"mode{k}.row_covariance"] = rows.new_zeros(*rows.shape, rows.shape[1])
        weights = state["weights"]
        body["core.mean"] = weights
        body["core.covariance"] = weights.new_zeros(len(weights), len(weights))
        body["noise.shape"], body["noise.rate"] = state["tau"], torch.ones_like(state["tau"])
        if "local" in state:
            body["local.weights"] = state["local"]
        return body


@register("probkit.tensor.TuckerDraws")
class TuckerDraws(TuckerPosterior):
    """Posterior held as Gibbs draws, with the predictions of :class:`TuckerPosterior`.

    Off the grid each draw is continued by its exact conditional given its neighbours; draws at
    several new points between the same two grid points are independent given these.
    """

    def __init__(
        self,
        problem: TuckerVariational,
        state: State,
        spec: dict[str, Any],
        draws: dict[str, Tensor] | None = None,
    ) -> None:
        super().__init__(problem, state, spec)
        found = {n.removeprefix("draws."): v for n, v in state.items() if n.startswith("draws.")}
        if draws is not None:
            found = {name: value.flatten(0, 1) for name, value in draws.items()}
        self._state = {n: v for n, v in self._state.items() if not n.startswith("draws.")}
        self._draws = found

    def tensors(self) -> State:
        """State, grids and draws."""
        return super().tensors() | {f"draws.{n}": v for n, v in self._draws.items()}

    @torch.no_grad()
    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of f over the draws, on the internal target scale."""
        count = len(self._draws["tau"])
        offset, scale = self.target_scaling
        f = (self.sample_f(x, count, torch.Generator().manual_seed(0)) - offset) / scale
        return f.mean(0), f.var(0)

    def append(self, x: Tensor, y: Tensor) -> TuckerPosterior:
        """Draws have no sites to add to.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            message(
                "A model fitted by Gibbs sampling cannot be updated",
                where="update",
                remedy="fit with CAVI to append entries",
            )
        )

    def _pick(self, num_samples: int) -> Tensor:
        """Evenly spaced draws, the same for every block of one call."""
        count = len(self._draws["tau"])
        return torch.linspace(0, count - 1, num_samples).round().long()

    def _factor_draws(
        self, k: int, points: Tensor | None, num_samples: int, generator: torch.Generator
    ) -> Tensor:
        paths = self._draws[f"path{k}"][self._pick(num_samples)]
        prior = self._problem.mode(self._state, k)
        grid = self._problem.entries.grids[k]
        with torch.no_grad():
            _, H = prior.stacked(grid[:1])
            if points is None:
                return paths @ H.mT
            position = locate(grid, points)
            rows = paths[:, position] @ H.mT
            off = position < 0
            if bool(off.any()):
                zero = paths.new_zeros(()).expand(*paths.shape, paths.shape[-1])
                known = Posterior(paths, zero, zero[:, 1:], paths.new_zeros(len(paths)))
                mean, covariance = interpolate(prior.chain, grid, known, points[off])
                rows_mean, rows_covariance = mean @ H.mT, H @ covariance @ H.mT
                values, vectors = torch.linalg.eigh(rows_covariance)
                root = vectors * values.clamp_min(0).sqrt().unsqueeze(-2)
                noise = _normal(rows_mean, generator).unsqueeze(-1)
                rows[:, off] = rows_mean + (root @ noise).squeeze(-1)
        return rows

    def _core_draws(self, num_samples: int, generator: torch.Generator) -> dict[str, Tensor]:
        pick = self._pick(num_samples)
        weights = self._draws["weights"][pick]
        core, shape = weights[:, :-1], self._problem.shape(self._state)
        if self._spec["structure"] == "tucker":
            core = core.reshape(num_samples, *shape.ranks)
        noise = self.target_scaling[1] / self._draws["tau"][pick].sqrt()
        return {"core": core, "intercept": weights[:, -1], "noise_sd": noise}


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(like.shape, generator=generator, dtype=like.dtype, device=generator.device)
    return noise.to(like.device)


def _gamma(shape: float, rate: Tensor, generator: torch.Generator) -> Tensor:
    shapes = torch.full_like(rate, shape, device=generator.device)
    return torch._standard_gamma(shapes, generator=generator).to(rate.device) / rate
