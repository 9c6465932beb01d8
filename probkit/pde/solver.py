"""``GPSolver``: solve a PDE by a Gaussian process whose spectrum is read off the source."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ConfigurationError, FitWarning, message
from probkit.infer import FitResult, Status
from probkit.infer.engine import Run, require_positive
from probkit.infer.provenance import data_digest
from probkit.linalg.whitened import WhitenedPosterior
from probkit.pde.collocation import Collocation, residual_at
from probkit.pde.harmonics import Harmonics
from probkit.pde.posterior import HarmonicPosterior
from probkit.pde.problem import Box, Points, Problem
from probkit.pde.solution import PDESolution
from probkit.pde.spectrum import Band, band_limit, prior_scales, scattered_band
from probkit.pde.validation import check_problem, on_points
from probkit.random import Seed

__all__ = ["GPSolver", "SpectralPrior"]

_UNRESOLVED = 1e-3
_FINER = 4


class SpectralPrior(Protocol):
    """A stationary kernel known by its spectral density."""

    def spectral_density(self, frequency: Tensor) -> Tensor:
        """S(f), f in cycles per unit, over all real f: the kernel is its Fourier integral."""
        ...


@dataclass(frozen=True)
class GPSolver:
    """Solve a linear or semilinear PDE by Gaussian-process collocation in harmonic features.

    Frequencies, band limit and prior weights are chosen from the source; nothing is set by hand.
    Fang et al., ICLR 2024, arXiv 2311.04465. Clean data on a plain box with more than about pi
    points a wavelength need no Gaussian process: a Chebyshev solver is as accurate and faster.

    Args:
        extension: period of the features over the length of a side.
        num_sweeps: evidence updates of the prior weights; 0 keeps the first ones.
        max_newton: limit on Newton steps.
        max_features: limit on features of a domain in two or more dimensions.
        band_limit: highest frequency (cycles per unit); None to choose it from the source.
        prior: a kernel with a known spectral density; None to learn the spectrum.

    Raises:
        ConfigurationError: a setting out of its range.

    Example:
        >>> from probkit.pde import PDE, Box, Condition, Problem, Term
        >>> ends = [Condition.dirichlet((0, 0)), Condition.dirichlet((0, 1))]
        >>> problem = Problem(
        ...     PDE([Term(1.0, (2,))]), Box([(0.0, math.pi)], 60), ends, lambda x: -torch.sin(x)
        ... )
        >>> solution = GPSolver().fit(problem)
        >>> abs(float(solution.mean(torch.tensor([1.0]))[0]) - math.sin(1.0)) < 1e-10
        True
    """

    extension: float = 2.0
    num_sweeps: int = 4
    max_newton: int = 20
    max_features: int = 1200
    band_limit: float | None = None
    prior: SpectralPrior | None = None

    def __post_init__(self) -> None:
        require_positive(self, "max_newton", "max_features")
        if self.extension < 1 or self.num_sweeps < 0:
            raise ConfigurationError(
                message(
                    "A setting is out of its range",
                    where="GPSolver",
                    got=f"extension {self.extension}, num_sweeps {self.num_sweeps}",
                    expected="extension >= 1, num_sweeps >= 0",
                )
            )

    def fit(self, problem: Problem, *, seed: Seed = 0, progress: bool = False) -> PDESolution:
        """Solve.

        Args:
            problem: equation, domain, conditions, source and data.
            seed: recorded; the computation draws no random numbers.
            progress: show a progress bar.

        Raises:
            ConfigurationError, DataError, ShapeError, DtypeError: at the door.
            NumericalError: Newton's method diverged.
        """
        check_problem(problem)
        points = problem.domain.points()
        shape = problem.domain.sizes if isinstance(problem.domain, Box) else None
        source = on_points(problem.source, points, "source", shape)
        bands, sides = self._sides(problem, points, source)
        weight = 1 / _operator_size(problem, bands, points)
        sweeps = 0 if self.prior is not None else self.num_sweeps
        system = Collocation(problem, sides, weight, sweeps, self.max_newton)
        scale = self._first_scales(problem, sides, points, source)
        run = Run(
            engine="GPSolver",
            settings={"equation": repr(problem.pde), **_plain(self)},
            limits=("max_newton",),
            seed=seed,
            data=data_digest(points, source),
            reason="asked for",
            checkpoint=None,
            resume=False,
            callbacks=(),
            progress=progress,
            every=1,
        )
        outcome = run.loop(system.step, system.initialize(scale), sweeps + self.max_newton)
        weights = _with_amplitude(system.posterior(outcome.state), system.exact)
        if problem.pde.nonlinear is not None:
            # the mean is the accepted iterate, the spread that of the equation linearised there
            mean = outcome.state["weights"] / weights.root.clamp(min=1e-300)
            weights = replace(weights, mean=mean)
        result = FitResult(
            outcome.status,
            HarmonicPosterior(sides, weights, points),
            {n: torch.tensor(c, dtype=torch.float64).numpy() for n, c in outcome.history.items()},
            provenance=run.record(outcome.state),
            detail=outcome.detail,
            state=outcome.state,
        )
        result.diagnostics = _diagnose(problem, system, weights, bands, outcome.history, sweeps)
        _warn(result)
        return PDESolution(result)

    solve = fit

    def _sides(
        self, problem: Problem, points: Tensor, source: Tensor
    ) -> tuple[list[Band], list[Harmonics]]:
        bands, sides = [], []
        for axis, (low, high) in enumerate(problem.domain.bounds):
            columns, x, num = _columns(problem, points, source, axis)
            if isinstance(problem.domain, Points) and problem.pde.dim == 1 and not problem.noise:
                band = scattered_band(source, x, low, high - low)
            else:
                band = band_limit(columns, x, high - low, num, noise=problem.noise)
            if self.band_limit is not None:
                band = band._replace(limit=self.band_limit)
            periodic = any(
                c.kind == "periodic" and c.where[0] == axis
                for c in problem.conditions
                if isinstance(c.where, tuple)
            )
            period = (high - low) * (1.0 if periodic else self.extension)
            num_harmonics = math.ceil(band.limit * period)
            if problem.pde.dim > 1:
                most = (math.floor(self.max_features ** (1 / problem.pde.dim)) - 1) // 2
                num_harmonics = min(num_harmonics, most)
            bands.append(band)
            sides.append(Harmonics(low, high - low, period, max(num_harmonics, 2)))
        return bands, sides

    def _first_scales(
        self, problem: Problem, sides: list[Harmonics], points: Tensor, source: Tensor
    ) -> Float[Tensor, " m"]:
        found = torch.ones(1, dtype=torch.float64)
        for axis, side in enumerate(sides):
            if self.prior is not None:
                frequencies = side.frequencies()
                own = 2 * self.prior.spectral_density(frequencies) / side.period
                own = torch.cat([own[:1] / 2, own[1:]])
            elif isinstance(problem.domain, Box) or problem.pde.dim == 1:
                columns, x, _ = _columns(problem, points, source, axis)
                own = prior_scales(side, columns, x, problem.pde.order(axis))
            else:
                own = 1 / (1 + (side.frequencies() * side.length) ** 4)
            found = (found[:, None] * own).flatten()
        return found


def _columns(
    problem: Problem, points: Tensor, source: Tensor, axis: int
) -> tuple[Tensor, Tensor, int]:
    """The source as columns along an axis, their coordinates, and the points along the axis."""
    domain = problem.domain
    if isinstance(domain, Box):
        grid = source.reshape(domain.sizes).movedim(axis, 0).reshape(domain.sizes[axis], -1)
        return grid, domain.axes()[axis], domain.sizes[axis]
    per_side = round(len(points) ** (1 / domain.dim))
    return source[:, None], points[:, axis], per_side


def _operator_size(problem: Problem, bands: list[Band], points: Tensor) -> float:
    """Size of the operator at the highest frequency that the source shows."""
    total = 0.0
    lengths = [high - low for low, high in problem.domain.bounds]
    for term in problem.pde.terms:
        coefficient = on_points(term.coefficient, points, f"coefficient of {term}")
        size = float(coefficient.abs().max())
        for band, length, order in zip(bands, lengths, term.orders, strict=True):
            size *= (2 * math.pi * max(band.top, 1 / length)) ** order
        total += size
    return total or 1.0


def _with_amplitude(found: WhitenedPosterior, exact: bool) -> WhitenedPosterior:
    """Exact data fix the prior up to its size, which is that of the weights they determine."""
    if not exact:
        return found
    along = found.right.mT @ found.mean
    size = float((along.square() * found.share).sum() / found.share.sum().clamp(min=1e-300))
    root = math.sqrt(size) if size > 0 else 1.0
    return replace(
        found,
        mean=found.mean / root,
        root=found.root * root,
        singular=found.singular * root,
        noise=found.noise * root**2,
        log_evidence=math.nan,
    )


def _diagnose(
    problem: Problem,
    system: Collocation,
    weights: WhitenedPosterior,
    bands: list[Band],
    history: dict[str, list[float]],
    sweeps: int,
) -> dict[str, Any]:
    source, unknown = system.source, weights.weights
    size = float(source.square().mean().sqrt()) or 1 / system.weight
    target = float(system.linearize(unknown)[1][len(source) :].norm()) or 1.0
    found: dict[str, Any] = {
        "equation": repr(problem.pde),
        "num_features": len(unknown),
        "rank": weights.rank,
        "frequency_top": [band.top for band in bands],
        "band_limit": [band.limit for band in bands],
        "points_per_wavelength": [
            2 * band.nyquist / band.top if band.top > 0 else math.inf for band in bands
        ],
        "near_nyquist": any(band.near_nyquist for band in bands),
        "residual_equation": float(system.residual(unknown).square().mean().sqrt()) / size,
        "residual_conditions": float(system.condition_residual(unknown).norm()) / target,
        "log_evidence": weights.log_evidence,
        "newton_steps": len(history["objective"]) - sweeps,
        "newton_changes": history.get("change", [])[sweeps:],
        "under_resolved": False,
    }
    if callable(problem.source) and isinstance(problem.domain, Box) and system.exact:
        finer = _finer_points(problem.domain, problem.pde.dim)
        values = on_points(problem.source, finer, "source")
        misfit = residual_at(problem.pde, system.sides, finer, unknown, values)
        scale = float(values.square().mean().sqrt()) or 1 / system.weight
        found["residual_finer"] = float(misfit.square().mean().sqrt()) / scale
        found["under_resolved"] = found["residual_finer"] > _UNRESOLVED
    return found


def _finer_points(domain: Box, dim: int) -> Tensor:
    """A grid with four times the points a side; in more dimensions a fixed number of them."""
    if dim == 1:
        return replace(domain, num=_FINER * domain.sizes[0]).points()
    generator = torch.Generator().manual_seed(0)
    unit = torch.rand(400, dim, generator=generator, dtype=torch.float64)
    low = torch.tensor([b[0] for b in domain.bounds], dtype=torch.float64)
    high = torch.tensor([b[1] for b in domain.bounds], dtype=torch.float64)
    return low + (high - low) * unit


def _warn(result: FitResult) -> None:
    diagnostics = result.diagnostics
    if diagnostics["under_resolved"]:
        text = "between the points the equation does not hold: the grid is too coarse"
    elif diagnostics["near_nyquist"]:
        text = "the source reaches the grid's Nyquist frequency; check with a finer grid"
    elif result.status is Status.MAX_STEPS:
        text = "Newton's method was stopped before it settled"
    else:
        return
    warnings.warn(f"GPSolver: {text}.", FitWarning, stacklevel=4)


def _plain(solver: GPSolver) -> dict[str, Any]:
    return {
        "extension": solver.extension,
        "num_sweeps": solver.num_sweeps,
        "max_newton": solver.max_newton,
        "max_features": solver.max_features,
        "band_limit": solver.band_limit,
        "prior": None if solver.prior is None else type(solver.prior).__name__,
    }
