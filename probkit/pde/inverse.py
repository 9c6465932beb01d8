"""``InverseSolver``: the unknown coefficients of a PDE, with their uncertainty, from what is seen.

1. the equation's rows are formed and compressed (:mod:`probkit.pde.inverse_rows`);
2. the evidence, which has a mode for every resonance, is evaluated at draws of the prior, and the
   best of them polished by L-BFGS and Newton steps;
3. an engine explores the Pyro model (:mod:`probkit.pde.inverse_model`) around that mode, in units
   of its width; the weights of u are drawn given each draw of the unknowns.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import biject_to
from torch.func import vmap

from probkit.errors import ConfigurationError, FitWarning, message
from probkit.infer import HMC, NUTS, SVI, DrawsPosterior, FitResult, Laplace, fit
from probkit.infer.seeding import pyro_seed
from probkit.kernels import SpectralMixtureKernel
from probkit.pde.dense_route import first_scales, side_features
from probkit.pde.harmonics import Harmonics, product_rows
from probkit.pde.inverse_model import WEIGHTS, CoefficientModel
from probkit.pde.inverse_rows import build_rows, with_known
from probkit.pde.inverse_solution import InversePosterior, InverseSolution
from probkit.pde.problem import Mask, Problem, Unknown
from probkit.pde.settings import SolverSettings
from probkit.pde.spectrum import SpectralPrior, density_scales
from probkit.pde.validation import check_problem, on_points
from probkit.random import Seed, as_generator
from probkit.validation import require_whole

__all__ = ["InverseSolver"]

Engine = Laplace | SVI | NUTS | HMC

_MOST_DRAWS = 1000
_BAND_DRAWS = 64
_CHUNK = 4_000_000
_NEWTON_SHARE = 10
_START = 1e-2
_POOR = 2.0


@dataclass(frozen=True)
class InverseSolver:
    """Find the :class:`probkit.pde.Unknown` coefficients and noises of a problem.

    Args:
        engine: how the posterior is explored: ``Laplace()``, ``SVI(...)``, ``NUTS(...)``.
        num_scans: draws of the prior among which the best mode is looked for.
        prior: a kernel with a known spectral density; a ``SpectralMixtureKernel``'s parameters that
            have priors are unknowns too. None for a spectrum read off the source, with an unknown
            amplitude.
        extension: period of the features over the length of a side.
        band_limit: highest frequency (cycles per unit); None to choose it from source and equation.
        max_features: limit on the features.

    Raises:
        ConfigurationError: a setting out of its range.

    Example:
        >>> import pyro.distributions as dist
        >>> from probkit.pde import PDE, Box, Condition, Term
        >>> x = torch.linspace(0.05, 0.95, 12, dtype=torch.float64)
        >>> ends = [Condition.dirichlet((0, 0), 0.0), Condition.dirichlet((0, 1), math.sin(6.0))]
        >>> rate = Unknown("rate", dist.Uniform(torch.tensor(1.0).double(), 9.0))
        >>> problem = Problem(
        ...     PDE([Term(rate, (2,))]),
        ...     Box([(0.0, 1.0)], 60),
        ...     ends,
        ...     lambda x: -72 * torch.sin(6 * x),
        ...     data=(x, torch.sin(6 * x), 0.01),
        ... )
        >>> found = InverseSolver().fit(problem).coefficients()
        >>> abs(found["rate"]["mean"] - 2.0) < 0.1
        True
    """

    engine: Engine = field(default_factory=Laplace)
    num_scans: int = 400
    prior: SpectralPrior | None = None
    extension: float = 2.0
    band_limit: float | None = None
    max_features: int = 600

    def __post_init__(self) -> None:
        require_whole(self, "num_scans", "max_features")
        if self.extension < 1:
            raise ConfigurationError(
                message(
                    "A setting is out of its range",
                    where="extension",
                    got=self.extension,
                    expected=">= 1",
                )
            )

    def fit(self, problem: Problem, *, seed: Seed = 0, progress: bool = False) -> InverseSolution:
        """Find what is unknown.

        Args:
            problem: with unknowns among its coefficients and noises.
            seed: of the scan, the engine and the draws.
            progress: show the engine's progress bar.

        Raises:
            ConfigurationError, DataError, ShapeError, DtypeError: at the door.

        Warns:
            FitWarning: a posterior reaches the end of its prior's support.
        """
        generator = as_generator(seed)
        model = self.model(problem, seed=seed if isinstance(seed, int) else generator)
        _center(model, self._scan(model, generator))
        rough = Laplace(num_posterior_samples=200, num_diagnostic_samples=0)
        found = rough.fit(model, seed=generator)
        if found.status.ok:
            _center_at_draws(model, found)
        result = fit(model, engine=self.engine, seed=generator, progress=progress)
        result.posterior = self._with_weights(model, result, problem, generator)
        result.diagnostics |= {
            "equation": repr(problem.pde),
            "num_features": model.num_weights,
            "unknowns": sorted(model.priors),
        }
        _check_fit(model, result)
        _warn_at_ends(problem, result)
        return InverseSolution(result)

    solve = fit

    def model(self, problem: Problem, *, seed: Seed = 0) -> CoefficientModel:
        """The Pyro model of a problem: for engines and guides of your own.

        Args:
            problem: with unknowns among its coefficients and noises.
            seed: of the draws of the unknowns by which the band of a line is chosen.

        Raises:
            ConfigurationError, DataError, ShapeError, DtypeError: at the door.
        """
        unknowns = _checked(problem)
        known = with_known(problem)
        check_problem(known)
        sides, scale = self._features(problem, known, seed)
        nonlinear = None
        if problem.pde.nonlinear is not None:
            x = problem.domain.points()
            arguments = problem.pde.nonlinear_arguments
            nonlinear = (problem.pde, [product_rows(sides, x, orders) for orders in arguments])
        rows = build_rows(problem, sides, compress=nonlinear is None)
        options: dict[str, Any] = {"scale": scale, "nonlinear": nonlinear}
        if isinstance(self.prior, SpectralMixtureKernel):
            options |= {"kernel": self.prior, "scale": None}
        elif self.prior is None:
            options["amplitude"] = _typical(rows.data_target, rows.source)
        return CoefficientModel(unknowns, rows, sides, **options)

    def _features(
        self, problem: Problem, known: Problem, seed: Seed
    ) -> tuple[list[Harmonics], Tensor]:
        limit = self.band_limit
        settings = SolverSettings(
            extension=self.extension,
            max_features=self.max_features,
            band_limit=limit,
            prior=self.prior,
        )
        points = known.domain.points()
        shape = getattr(known.domain, "sizes", None)
        source = on_points(known.source, points, "source", shape)
        bands, sides = side_features(settings, known, points, source)
        if limit is None and problem.pde.dim == 1:
            (side,), (band,) = sides, bands
            own = 1.35 * _natural_frequency(problem, seed) + 4 / side.length
            num = math.ceil(min(max(own, band.limit), 0.98 * band.nyquist) * side.period)
            most = (self.max_features - 1) // 2
            sides = [replace(side, num=max(min(num, most), 2))]
        if self.prior is not None:
            scale = torch.ones(1, dtype=torch.float64)
            for side in sides:
                scale = (scale[:, None] * density_scales(side, self.prior)).flatten()
            return sides, scale
        return sides, first_scales(settings, known, sides, points, source)

    def _scan(self, model: CoefficientModel, generator: torch.Generator) -> dict[str, Tensor]:
        """The best of many draws of the prior."""
        with pyro_seed(int(torch.randint(2**62, (), generator=generator))), torch.no_grad():
            draws = {n: p.sample((self.num_scans,)).double() for n, p in model.priors.items()}
            if model.nonlinear is None:
                chunk = max(_CHUNK // model.num_weights**2, 1)
                found = vmap(model.log_evidence, chunk_size=chunk)(draws)
            else:  # Newton steps for each: fewer of them
                few = -(-self.num_scans // _NEWTON_SHARE)
                draws = {name: draw[:few] for name, draw in draws.items()}
                each = [{n: draw[k] for n, draw in draws.items()} for k in range(few)]
                found = torch.stack([model.linearized(values)[0] for values in each])
            for name, prior in model.priors.items():
                found = found + prior.log_prob(draws[name])
            best = int(torch.where(found.isfinite(), found, -torch.inf).argmax())
        return {name: draw[best] for name, draw in draws.items()}

    def _with_weights(
        self,
        model: CoefficientModel,
        result: FitResult,
        problem: Problem,
        generator: torch.Generator,
    ) -> InversePosterior:
        """The unknowns' draws, each with a draw of the weights of u."""
        assert isinstance(result.posterior, DrawsPosterior)
        draws = result.posterior.draws
        chains, total = next(iter(draws.values())).shape[:2]
        keep = torch.linspace(0, total - 1, min(total, _MOST_DRAWS // chains or 1)).long()
        thinned = {name: value[:, keep] for name, value in draws.items()}
        weights = [
            model.draw_weights({n: value[c, k] for n, value in thinned.items()}, generator)
            for c in range(chains)
            for k in range(len(keep))
        ]
        thinned.pop(WEIGHTS, None)
        thinned["features"] = torch.stack(weights).reshape(chains, len(keep), -1)
        return InversePosterior(thinned, model.sides, problem.domain.points())


def _checked(problem: Problem) -> list[Unknown]:
    """The unknowns, each once.

    Raises:
        ConfigurationError: none, two priors for one name, a prior of a vector, or a mask.
    """
    found = problem.unknowns()
    by_name = {unknown.name: unknown for unknown in found}
    trouble = None
    if not found:
        trouble = "The problem has nothing unknown; GPSolver solves it"
    elif isinstance(problem.domain, Mask):
        trouble = "Inverse problems are posed on a box or at scattered points; take Points"
    elif any(by_name[u.name].prior is not u.prior for u in found):
        trouble = "One name has two priors"
    elif any(tuple(u.prior.batch_shape + u.prior.event_shape) for u in found):
        trouble = "The prior of an unknown must be that of a single number"
    if trouble:
        raise ConfigurationError(
            message(trouble, where="Problem", got=[unknown.name for unknown in found])
        )
    return list(by_name.values())


def _center(model: CoefficientModel, point: dict[str, Tensor]) -> None:
    """Start every unknown at a point, and the weights at their mode there."""
    for name, value in point.items():
        flat = biject_to(model.priors[name].support).inv(value)
        model.centers[name] = (value, torch.full_like(flat, _START))
    if model.nonlinear is not None:
        model.anchor(point)


def _center_at_draws(model: CoefficientModel, result: FitResult) -> None:
    """Origin and unit of every unknown from draws around the mode."""
    assert isinstance(result.posterior, DrawsPosterior)
    for name, prior in model.priors.items():
        transform = biject_to(prior.support)
        flat = transform.inv(result.posterior.draws[name].flatten(0, 1))
        model.centers[name] = (transform(flat.mean(0)), flat.std(0).clamp(min=1e-8))


def _check_fit(model: CoefficientModel, result: FitResult) -> None:
    """Tell where the mean of u leaves more of the equation than its noise."""
    assert isinstance(result.posterior, InversePosterior)
    mean = result.posterior.mean()
    for name, misfit in model.misfits(mean, mean["features"]).items():
        result.diagnostics[f"misfit_{name}"] = misfit
        if misfit > _POOR:
            warnings.warn(
                f"InverseSolver: the {name} is missed by {misfit:.1f} times its noise or tolerance,"
                " so that the intervals are too narrow; raise max_features or band_limit, or give"
                " it a larger noise.",
                FitWarning,
                stacklevel=3,
            )


def _typical(data: Tensor, source: Tensor) -> float:
    values = data if len(data) else source
    return float(values.square().mean().sqrt()) or 1.0


def _natural_frequency(problem: Problem, seed: Seed) -> float:
    """Highest frequency of free solutions on a line, over draws of the unknowns."""
    pde, x = problem.pde, problem.domain.points()
    order = max((t.orders[0] for t in pde.terms), default=0)
    if order == 0:
        return 0.0
    found = 0.0
    with pyro_seed(int(torch.randint(2**62, (), generator=as_generator(seed)))):
        for _ in range(_BAND_DRAWS):
            symbol = np.zeros(order + 1)
            for term in pde.terms:
                value, factor = term.coefficient, 1.0
                if isinstance(value, Unknown):
                    value, factor = value.factor, float(value.prior.sample())
                mean = float(on_points(value, x, f"coefficient of {term}").mean())
                symbol[order - term.orders[0]] += factor * mean
            roots = np.roots(symbol)
            found = max([found, *np.abs(roots.imag) / (2 * math.pi)])
    return float(found)


def _warn_at_ends(problem: Problem, result: FitResult) -> None:
    """Tell where data push an unknown against the end of an interval."""
    assert isinstance(result.posterior, DrawsPosterior)
    for unknown in problem.unknowns():
        support = unknown.prior.support
        low, high = (getattr(support, end, None) for end in ("lower_bound", "upper_bound"))
        if low is None or high is None:
            continue
        draws = result.posterior.draws[unknown.name]
        place = (draws - low) / (high - low)
        edge = float(((place < 0.01) | (place > 0.99)).double().mean())
        if edge > 0.2:
            warnings.warn(
                f"InverseSolver: {unknown.name} lies at an end of its prior's interval; widen it.",
                FitWarning,
                stacklevel=3,
            )
