"""One dimension, and scattered points: all rows formed, one singular value decomposition a step."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.infer import FitResult
from probkit.linalg.whitened import WhitenedPosterior
from probkit.pde.collocation import Collocation
from probkit.pde.continuum import choose_decay, is_continuum
from probkit.pde.diagnostics import Checked, diagnose
from probkit.pde.errors import UnsolvableError
from probkit.pde.harmonics import Harmonics, product_rows
from probkit.pde.mixed import has_noisy_rows
from probkit.pde.posterior import HarmonicPosterior
from probkit.pde.problem import Box, Points, Problem
from probkit.pde.settings import SolverSettings
from probkit.pde.spectrum import Band, band_limit, density_scales, prior_scales, scattered_band
from probkit.pde.uniqueness import check_line
from probkit.pde.validation import on_points
from probkit.random import Seed

__all__ = ["first_scales", "side_features", "solve_dense"]

_LARGEST = 4e9
_RESONANT = 1e8
_UNMET = 0.1


def solve_dense(
    settings: SolverSettings, problem: Problem, reason: str, seed: Seed, progress: bool
) -> FitResult:
    """Solve with all rows formed.

    Raises:
        ConfigurationError: more rows than memory.
        UnsolvableError: the equation and its conditions do not determine the solution.
    """
    points = problem.domain.points()
    shape = problem.domain.sizes if isinstance(problem.domain, Box) else None
    source = on_points(problem.source, points, "source", shape)
    bands, sides = side_features(settings, problem, points, source)
    broad = _broad(settings, problem, bands)
    if broad:
        side = sides[0]
        sides = [replace(side, num=math.ceil(0.98 * bands[0].nyquist * side.period))]
    _check_memory(len(points), math.prod(side.num_features for side in sides))
    weight = 1 / _operator_size(problem, bands, points)
    sweeps = 0 if settings.prior is not None else settings.num_sweeps
    system = Collocation(problem, sides, weight, sweeps, settings.max_newton)
    if system.all_zero:
        system = replace(system, num_sweeps=(sweeps := 0))  # nothing to learn a prior from
    scale = first_scales(settings, problem, sides, points, source)
    if broad:
        rows, wanted = system.linearize(torch.zeros_like(scale))
        decaying = choose_decay(rows, wanted, sides[0], bands[0].nyquist, scale)
        if decaying is not None:
            scale, sweeps = decaying, 0
            system = replace(system, num_sweeps=0)
    run = settings.run(problem, "dense", reason, (points, source), seed, progress)
    outcome = run.loop(system.step, system.initialize(scale), sweeps + settings.max_newton)
    if system.mixed:
        system.relax(outcome.state["weights"])
    weights = _with_amplitude(system.posterior(outcome.state), system.exact)
    if problem.pde.nonlinear is not None:
        # the mean is the accepted iterate, the spread that of the equation linearised there
        mean = outcome.state["weights"] / weights.root.clamp(min=1e-300)
        weights = replace(weights, mean=mean)
    rank = weights.rank
    weights = _with_misfit(system, weights)
    weights, free = _without_free_constant(system, weights)
    posterior = HarmonicPosterior(sides, weights, points)
    result = FitResult(
        outcome.status,
        posterior,
        {n: torch.tensor(c, dtype=torch.float64).numpy() for n, c in outcome.history.items()},
        provenance=run.record(outcome.state),
        detail=outcome.detail,
        state=outcome.state,
    )
    unknown = weights.weights
    target = float(system.linearize(unknown)[1][len(source) :].norm()) or 1.0
    checked = Checked(
        misfit=system.residual(unknown),
        conditions=float(system.condition_residual(unknown).norm()) / target,
        size=float(source.square().mean().sqrt()) or 1 / system.weight,
        operator_size=1 / system.weight,
        num_features=len(unknown),
        rank=rank,
        bands=bands,
        log_evidence=weights.log_evidence,
        skipped=sweeps,
    )

    def mean_at(x: Tensor, orders: tuple[int, ...]) -> Tensor:
        return product_rows(sides, x, orders) @ unknown

    result.diagnostics = diagnose(problem, checked, outcome.history, mean_at)
    result.diagnostics["free_constant"] = free
    if system.exact and problem.pde.nonlinear is None and settings.band_limit is None:
        _check_solvable(result, unknown, system, checked)
    check_line(system, unknown)
    return result


def _broad(settings: SolverSettings, problem: Problem, bands: list[Band]) -> bool:
    """Whether the decay of a continuum is to be looked for."""
    free = settings.prior is None and settings.band_limit is None and problem.noise == 0
    free = free and not has_noisy_rows(problem)
    line = problem.pde.dim == 1 and isinstance(problem.domain, Box)
    return free and line and is_continuum(bands[0].visible)


def _check_memory(rows: int, features: int) -> None:
    size = 3 * 8.0 * rows * features
    if size > _LARGEST:
        raise ConfigurationError(
            message(
                "The rows of scattered points do not fit into memory",
                where="domain",
                got=f"{rows} points x {features} features, about {size / 1e9:.1f} GB",
                expected=f"<= {_LARGEST / 1e9:.0f} GB",
                remedy="put the points on a grid (Mask), whose rows are never formed, or lower "
                "max_features",
            )
        )


def _without_free_constant(
    system: Collocation, weights: WhitenedPosterior
) -> tuple[WhitenedPosterior, bool]:
    """Where only derivatives of u are given, u is known up to a constant: take zero mean."""
    rows = system.linearize(torch.zeros_like(weights.root))[0]
    if system.problem.pde.nonlinear is not None or float(rows[:, 0].abs().max()) > 0:
        return weights, False
    mean = weights.mean.clone()
    mean[0] -= system.values(weights.weights).mean() / weights.root[0].clamp(min=1e-300)
    return replace(weights, mean=mean), True


def _check_solvable(
    result: FitResult, unknown: Tensor, system: Collocation, checked: Checked
) -> None:
    """A linear equation that cannot be met, or only by an enormous solution, has no answer."""
    diagnostics = result.diagnostics
    size = float(system.values(unknown).square().mean().sqrt())
    amplification = size * checked.operator_size / checked.size
    misfit = diagnostics["residual_equation"]
    if diagnostics["over_determined"] or (amplification < _RESONANT and misfit < _UNMET):
        return
    raise UnsolvableError(
        message(
            "The equation cannot be met together with its conditions",
            got=f"condition number about {amplification:.1e}, relative residual {misfit:.1e}",
            causes=(
                "a source that does not balance the fluxes, where no condition fixes u itself",
                "a resonance: the zeroth-order coefficient is an eigenvalue",
                "a band limit set too low",
            ),
            remedy="pin u by a Dirichlet condition, or change the coefficient",
        ),
        unknown,
    )


def side_features(
    settings: SolverSettings, problem: Problem, points: Tensor, source: Tensor
) -> tuple[list[Band], list[Harmonics]]:
    """Bands and features of every side, as the source shows them."""
    bands, sides = [], []
    for axis, (low, high) in enumerate(problem.domain.bounds):
        columns, x, num = _columns(problem, points, source, axis)
        if isinstance(problem.domain, Points) and problem.pde.dim == 1 and not problem.noise:
            band = scattered_band(source, x, low, high - low)
        else:
            band = band_limit(columns, x, high - low, num, noise=problem.noise)
        if settings.band_limit is not None:
            band = band._replace(limit=settings.band_limit)
        periodic = any(
            c.kind == "periodic" and c.where[0] == axis
            for c in problem.conditions
            if isinstance(c.where, tuple)
        )
        period = (high - low) * (1.0 if periodic else settings.extension)
        num_harmonics = math.ceil(band.limit * period)
        if problem.pde.dim > 1:
            most = (math.floor(settings.max_features ** (1 / problem.pde.dim)) - 1) // 2
            num_harmonics = min(num_harmonics, most)
        bands.append(band)
        sides.append(Harmonics(low, high - low, period, max(num_harmonics, 2)))
    return bands, sides


def first_scales(
    settings: SolverSettings,
    problem: Problem,
    sides: list[Harmonics],
    points: Tensor,
    source: Tensor,
) -> Float[Tensor, " m"]:
    """First prior variances of all features."""
    found = torch.ones(1, dtype=torch.float64)
    for axis, side in enumerate(sides):
        if settings.prior is not None:
            own = density_scales(side, settings.prior)
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


def _with_misfit(system: Collocation, found: WhitenedPosterior) -> WhitenedPosterior:
    """Exact data that the features cannot meet to rounding: the misfit counts as noise.

    Without it the spread would be that of rounding, however far the mean is from the solution.
    """
    if not system.exact:
        return found
    equation = system.weight * system.residual(found.weights)
    misfit = torch.cat([equation, system.condition_residual(found.weights)])
    return replace(found, noise=max(found.noise, float(misfit.square().mean())))


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
