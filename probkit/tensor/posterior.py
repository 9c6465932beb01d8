"""The fitted functional Tucker model: factors, predictions anywhere, draws; loads without data.

Off the grid a factor's law is the exact conditional of its Markov process given the smoothed
neighbours (the reverse-time transition left of the data). Mean and variance of f are exact for the
variational posterior: E f^2 = <E[W W'], kron_k E[u u']>.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.infer.registry import register
from probkit.kernels import MarkovKernel
from probkit.statespace.interpolation import interpolate
from probkit.statespace.sampling import sample_posterior
from probkit.statespace.types import Posterior, Sites
from probkit.tensor.entries import Entries, Scaling, locate
from probkit.tensor.kernels import NamedKernels
from probkit.tensor.likelihoods import Likelihood, make_likelihood
from probkit.tensor.moments import moments_of
from probkit.tensor.predictive import (
    CountPredictive,
    LabelPredictive,
    Predictive,
    RealPredictive,
    gamma_nodes,
)
from probkit.tensor.streaming import append_entries
from probkit.tensor.structure import packed_rows
from probkit.tensor.variational import TuckerVariational
from probkit.validation import check_levels, check_quantile

__all__ = ["TuckerPosterior", "predictive_law", "real_predictive"]

State = dict[str, Tensor]


@register("probkit.tensor.TuckerPosterior")
class TuckerPosterior:
    """Variational posterior of a functional Tucker or CP model.

    Args:
        problem: the coordinate updates it came from; its entries are not kept.
        state: the final state.
        spec: scalings, names and kernels, see ``FunctionalTucker``.
    """

    def __init__(self, problem: TuckerVariational, state: State, spec: dict[str, Any]) -> None:
        empty = torch.zeros(0, dtype=state["core.mean"].dtype)
        entries = Entries(problem.entries.grids, [], empty)
        self._problem = replace(problem, entries=entries)
        outside = ("program.", "local.weights", "local.targets")
        self._state = {n: v for n, v in state.items() if not n.startswith(outside)}
        self._spec = spec

    # -- what every posterior offers ---------------------------------------------------------------

    def mean(self) -> dict[str, Tensor]:
        """Posterior means: ``factor_k`` (D_k, R_k) on the grids, ``core``, ``intercept``."""
        state, shape = self._state, self._problem.shape(self._state)
        factors = {f"factor_{k}": state[f"mode{k}.row_mean"] for k in self._modes}
        core = state["core.mean"]
        return factors | {"core": shape.core(core[:-1]), "intercept": core[-1]}

    def sd(self) -> dict[str, Tensor]:
        """Posterior standard deviations of the same sites."""
        state, shape = self._state, self._problem.shape(self._state)
        factors = {
            f"factor_{k}": _diagonal(state[f"mode{k}.row_covariance"]).sqrt() for k in self._modes
        }
        core = _diagonal(state["core.covariance"]).sqrt()
        return factors | {"core": shape.core(core[:-1]), "intercept": core[-1]}

    def quantile(self, q: float | Sequence[float]) -> dict[str, Tensor]:
        """Quantiles of the same sites (all are Gaussian); a sequence adds a leading dimension.

        Raises:
            ConfigurationError: a level that is no probability strictly between 0 and 1.
        """
        levels = check_quantile("q", q)
        mean, sd = self.mean(), self.sd()
        z = torch.special.ndtri(torch.as_tensor(levels, dtype=torch.float64))
        return {
            n: mean[n] + sd[n] * z.to(mean[n]).reshape((*z.shape, *[1] * mean[n].dim()))
            for n in mean
        }

    def sample(self, num_samples: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Joint draws of the same sites and of ``noise_sd`` (in target units)."""
        draws = {
            f"factor_{k}": self._factor_draws(k, None, num_samples, generator) for k in self._modes
        }
        return draws | self._core_draws(num_samples, generator)

    def spec(self) -> dict[str, Any]:
        """What :meth:`from_spec` needs besides the tensors."""
        return self._spec

    def tensors(self) -> State:
        """The state and the grids."""
        return self._state | {f"grid{k}": self._problem.entries.grids[k] for k in self._modes}

    @classmethod
    def from_spec(cls, spec: dict[str, Any], tensors: State) -> TuckerPosterior:
        """Rebuild from a saved result, without data."""
        grids = [tensors[f"grid{k}"] for k in range(len(spec["kernels"]))]
        empty = torch.zeros(0, dtype=grids[0].dtype)
        problem = TuckerVariational(
            Entries(grids, [], empty),
            make_likelihood(spec["likelihood"], spec["likelihood_options"]),
            spec["structure"],
            NamedKernels(tuple(spec["kernels"])),
        )
        return cls(problem, {n: v for n, v in tensors.items() if not n.startswith("grid")}, spec)

    def datatree_groups(
        self, num_samples: int, generator: torch.Generator
    ) -> tuple[dict[str, dict[str, Tensor]], dict[str, list[str]], dict[str, Any]]:
        """Draws with named coordinates in user units."""
        draws = {n: v[None] for n, v in self.sample(num_samples, generator).items()}
        names = self._spec["input_names"]
        ranks = self._state["ranks"].tolist()
        dims: dict[str, list[str]] = {}
        coords: dict[str, Any] = {}
        for k in self._modes:
            component = f"{names[k]}_component"
            dims[f"factor_{k}"] = [names[k], component]
            coords[names[k]] = self.grid(k).cpu().numpy()
            coords[component] = list(range(ranks[k]))
        tucker = self._spec["structure"] == "tucker"
        dims["core"] = [f"{names[k]}_component" for k in self._modes][: None if tucker else 1]
        return {"posterior": draws}, dims, coords

    def hyperparameters(self) -> list[dict[str, Tensor]]:
        """Kernel hyper-parameters of each mode, one value a component, lengths in user units."""
        found = []
        for k in self._modes:
            kernel, scale = self._problem.mode(self._state, k).kernel, self._scaling(k).scale
            values = {}
            for label, module, name in _constrained(kernel):
                constraint = getattr(module, f"{name}_constraint")
                value = constraint.transform(getattr(module, name).detach()).flatten()
                # a periodic kernel's lengthscale is relative to its period
                relative = name == "raw_lengthscale" and hasattr(module, "period_length")
                is_length = label.endswith(("lengthscale", "period_length")) and not relative
                values[label] = value * (scale if is_length else 1.0)
            found.append(values)
        return found

    @property
    def noise_sd(self) -> float:
        """Scale of the noise in target units (Student-t: its scale parameter); 0 without noise."""
        state = self._state
        if "noise.shape" not in state:
            return 0.0
        return self.target_scaling[1] * float((state["noise.rate"] / state["noise.shape"]).sqrt())

    # -- predictions ---------------------------------------------------------------------------

    def grid(self, k: int) -> Float[Tensor, " D"]:
        """Grid of mode k in user units."""
        scaling = self._scaling(k)
        return self._problem.entries.grids[k] * scaling.scale + scaling.offset

    @torch.no_grad()
    def moments(self, x: Float[Tensor, "Q K"]) -> tuple[Tensor, Tensor]:
        """Mean and variance of f at coordinates in user units; f on the internal target scale."""
        means, packed, index = [], [], []
        for k in self._modes:
            points, rows = torch.unique(self._scaling(k).apply(x[:, k]), return_inverse=True)
            mean, covariance = self.rows(k, points)
            means.append(mean)
            packed.append(packed_rows(mean, covariance))
            index.append(rows)
        empty = [torch.zeros(m.shape[0]) for m in means]
        entries = Entries(empty, index, x.new_zeros(x.shape[0]))
        shape = self._problem.shape(self._state)
        return moments_of(self._state, shape, entries, packed, means)

    @torch.no_grad()
    def rows(self, k: int, points: Float[Tensor, " Q"]) -> tuple[Tensor, Tensor]:
        """Mean (Q, R) and covariance (Q, R, R) of mode k at sorted distinct internal points."""
        state, grid = self._state, self._problem.entries.grids[k]
        position = locate(grid, points)
        mean = state[f"mode{k}.row_mean"][position]
        covariance = state[f"mode{k}.row_covariance"][position]
        off = position < 0
        if bool(off.any()):
            prior = self._problem.mode(state, k)
            _, H = prior.stacked(grid[:1])
            z_mean, z_covariance = interpolate(prior.chain, grid, self._smoothed(k), points[off])
            scale = state[f"mode{k}.scale"]
            mean[off] = z_mean @ H.mT / scale
            covariance[off] = H @ z_covariance @ H.mT / (scale[:, None] * scale)
        return mean, covariance

    def predictive(self, x: Float[Tensor, "Q K"]) -> Predictive:
        """Predictive law of new observations, on the internal target scale."""
        mean, variance = self.moments(x)
        return predictive_law(self._problem.likelihood, self._state, mean, variance)

    def predict(
        self, x: Float[Tensor, "Q K"], *, quantiles: float | Sequence[float] = ()
    ) -> dict[str, Tensor]:
        """``mean`` and ``sd`` of new observations and, if asked for, ``quantiles`` (L, Q).

        Raises:
            ConfigurationError: a level outside (0, 1).
        """
        none = isinstance(quantiles, tuple) and not quantiles
        probabilities = () if none else check_levels("quantiles", quantiles)
        law = self.predictive(x)
        offset, scale = self.target_scaling
        result = {"mean": offset + scale * law.mean(), "sd": scale * law.sd()}
        if probabilities:
            levels = [offset + scale * law.quantile(level) for level in probabilities]
            result["quantiles"] = torch.stack(levels)
        return result

    def log_likelihood(
        self, x: Float[Tensor, "Q K"], y: Float[Tensor, " Q"]
    ) -> Float[Tensor, " Q"]:
        """Log predictive density of each observation, in target units."""
        offset, scale = self.target_scaling
        return self.predictive(x).log_prob((y - offset) / scale) - math.log(scale)

    def sample_f(
        self, x: Float[Tensor, "Q K"], num_samples: int, generator: torch.Generator
    ) -> Float[Tensor, "S Q"]:
        """Joint draws of the noiseless surface (link scale for counts and labels)."""
        product: Tensor | None = None
        tucker = self._spec["structure"] == "tucker"
        for k in self._modes:
            points, rows = torch.unique(self._scaling(k).apply(x[:, k]), return_inverse=True)
            draws = self._factor_draws(k, points, num_samples, generator)[:, rows]
            if product is None:
                product = draws
            elif tucker:
                product = (product[..., :, None] * draws[..., None, :]).flatten(-2)
            else:
                product = product * draws
        assert product is not None
        core = self._core_draws(num_samples, generator)
        weights = core["core"].flatten(1)
        offset, scale = self.target_scaling
        f = torch.einsum("sqg,sg->sq", product, weights) + core["intercept"][:, None]
        return offset + scale * f

    def append(self, x: Float[Tensor, "N K"], y: Float[Tensor, " N"]) -> TuckerPosterior:
        """The posterior after further entries, in user units; see ``streaming``."""
        offset, scale = self.target_scaling
        columns = [self._scaling(k).apply(x[:, k]) for k in self._modes]
        problem, state = append_entries(self._problem, self._state, columns, (y - offset) / scale)
        return TuckerPosterior(problem, state, self._spec)

    @property
    def target_scaling(self) -> tuple[float, float]:
        """Offset and scale from internal to target units."""
        return self._spec["target_offset"], self._spec["target_scale"]

    # -- helpers -------------------------------------------------------------------------------

    @property
    def _modes(self) -> range:
        return range(len(self._problem.entries.grids))

    def _scaling(self, k: int) -> Scaling:
        return Scaling(*self._spec["scalings"][k])

    def _smoothed(self, k: int) -> Posterior:
        """Smoothed states before scale balancing, the law that belongs to the prior."""
        state = self._state
        mean, scale = state[f"mode{k}.mean"], state[f"mode{k}.scale"]
        states = torch.repeat_interleave(scale, mean.shape[-1] // len(scale))
        square = states[:, None] * states
        covariance, cross = state[f"mode{k}.covariance"], state[f"mode{k}.cross"]
        return Posterior(mean * states, covariance * square, cross * square, mean.new_zeros(()))

    def _factor_draws(
        self, k: int, points: Tensor | None, num_samples: int, generator: torch.Generator
    ) -> Tensor:
        """Path draws of mode k on its grid, or at internal ``points``, (S, D or Q, R).

        Points off the grid join the chain with empty sites, so that draws are jointly exact.
        """
        state, grid = self._state, self._problem.entries.grids[k]
        precision, linear = state[f"mode{k}.site_precision"], state[f"mode{k}.site_linear"]
        rows = None
        if points is not None:
            position = locate(grid, points)
            extra = points[position < 0]
            order = torch.argsort(torch.cat([grid, extra]))
            inverse = torch.argsort(order)
            grid = torch.cat([grid, extra])[order]
            fill = extra.shape[0]
            rank = linear.shape[1]
            precision = torch.cat([precision, precision.new_zeros(fill, rank, rank)])[order]
            linear = torch.cat([linear, linear.new_zeros(fill, rank)])[order]
            old = torch.where(position >= 0, position, torch.cumsum(position < 0, 0) - 1
                              + self._problem.entries.grids[k].shape[0])  # fmt: skip
            rows = inverse[old]
        prior = self._problem.mode(state, k)
        transitions, H = prior.stacked(grid)
        sites = Sites(precision, linear, linear.new_zeros(()))
        with torch.no_grad():
            paths = sample_posterior(transitions, H, sites, num_samples, generator)
        draws = paths @ H.mT / state[f"mode{k}.scale"]
        return draws if rows is None else draws[:, rows]

    def _core_draws(self, num_samples: int, generator: torch.Generator) -> dict[str, Tensor]:
        state, shape = self._state, self._problem.shape(self._state)
        core = state["core.mean"]
        noise = torch.randn(
            num_samples, len(core), generator=generator, dtype=core.dtype, device=generator.device
        ).to(core.device)
        draws = core + noise @ torch.linalg.cholesky(state["core.covariance"]).mT
        weights = draws[:, :-1]
        if self._spec["structure"] == "tucker":
            weights = weights.reshape(num_samples, *shape.ranks)
        result = {"core": weights, "intercept": draws[:, -1]}
        if "noise.shape" in state:
            a = state["noise.shape"].expand(num_samples).to(generator.device)
            tau = torch._standard_gamma(a, generator=generator) / state["noise.rate"]
            result["noise_sd"] = self.target_scaling[1] / tau.sqrt()
        return result


def predictive_law(
    likelihood: Likelihood, state: State, mean: Tensor, variance: Tensor
) -> Predictive:
    """Predictive law of observations where f has the given moments."""
    if likelihood.name == "bernoulli":
        return LabelPredictive(mean, variance)
    if not likelihood.continuous:
        size = state.get("local.dispersion", torch.tensor(math.inf))
        return CountPredictive(mean, variance, float(size))
    spread = float(state.get("calibration.spread", torch.tensor(1.0)))
    return real_predictive(likelihood, state, mean, variance, spread)


def real_predictive(
    likelihood: Likelihood, state: State, mean: Tensor, variance: Tensor, spread: float = 1.0
) -> RealPredictive:
    """Predictive law under Gaussian or Student-t noise."""
    shape, rate = float(state["noise.shape"]), float(state["noise.rate"])
    if "local.df" in state:
        df, tau = float(state["local.df"]), shape / rate
        nodes, weights = gamma_nodes(df / 2, df / 2 / tau)
        noise_variance = df / (df - 2) / tau if df > 2 else math.inf
    else:
        nodes, weights = gamma_nodes(shape, rate)
        noise_variance = rate / (shape - 1) if shape > 1 else math.inf
    return RealPredictive(
        mean,
        variance,
        torch.as_tensor(nodes).to(mean),
        torch.as_tensor(weights).to(mean),
        spread,
        noise_variance,
    )


def _constrained(kernel: MarkovKernel) -> Iterator[tuple[str, Any, str]]:
    """Label, module and raw name of each hyper-parameter of a kernel."""
    for path, module in kernel.named_modules():
        for name, _ in module.named_parameters(recurse=False):
            label = name.removeprefix("raw_")
            yield f"{path}.{label}" if path else label, module, name


def _diagonal(matrix: Tensor) -> Tensor:
    return torch.diagonal(matrix, dim1=-2, dim2=-1)
