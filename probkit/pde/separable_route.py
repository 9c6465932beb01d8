"""Constant-coefficient elliptic equations on a box: Galerkin in the learned bases, diagonalised."""

from __future__ import annotations

import torch
from torch import Tensor

from probkit.infer import FitResult
from probkit.pde.diagnostics import Checked, diagnose
from probkit.pde.grid_posterior import GridPosterior
from probkit.pde.grid_problem import GridProblem
from probkit.pde.grid_spread import SumSpread
from probkit.pde.grid_system import AxisCondition, GridSystem
from probkit.pde.problem import Problem
from probkit.pde.settings import SolverSettings
from probkit.random import Seed, as_generator

__all__ = ["solve_separable"]


def solve_separable(
    settings: SolverSettings, problem: Problem, reason: str, seed: Seed, progress: bool
) -> FitResult:
    """Solve by fast diagonalisation.

    Raises:
        NumericalError: a singular operator (a resonance), or Newton's method diverged.
    """
    grid = GridProblem(problem, settings, as_generator(seed))
    conditions: list[list[AxisCondition]] = [
        [(f.condition.functional, f.place, f.data) for f in grid.faces if f.axis == axis]
        for axis in range(problem.pde.dim)
    ]
    source = grid.source.reshape(grid.box.sizes)
    system = GridSystem(problem.pde, grid.bases, conditions, source)
    run = settings.run(problem, "separable", reason, (grid.source,), seed, progress)
    outcome = run.loop(system.step, system.initialize, settings.max_newton)
    mean = system.coefficients(outcome.state["y"])
    misfit = system.residual(mean, source).reshape(-1)
    spread = SumSpread(system.null, system.sum.factors, system.shift, float(misfit.square().mean()))
    posterior = GridPosterior(grid.bases, mean, spread)
    result = FitResult(
        outcome.status,
        posterior,
        {n: torch.tensor(c, dtype=torch.float64).numpy() for n, c in outcome.history.items()},
        provenance=run.record(outcome.state),
        detail=outcome.detail,
        state=outcome.state,
    )
    size = grid.operator_size
    checked = Checked(
        misfit=misfit,
        conditions=_condition_misfit(grid, posterior),
        size=float(grid.source.square().mean().sqrt()) or size,
        operator_size=size,
        num_features=mean.numel(),
        rank=outcome.state["y"].numel(),
        bands=[b.band for b in grid.bases],
        log_evidence=float("nan"),
    )

    def mean_at(x: Tensor, orders: tuple[int, ...]) -> Tensor:
        return posterior.mean_at(x, derivative=orders)

    result.diagnostics = diagnose(problem, checked, outcome.history, mean_at)
    return result


def _condition_misfit(grid: GridProblem, posterior: GridPosterior) -> float:
    """Norm of the misfit on all faces relative to their data, or to u if those are smaller."""
    misfit, size = 0.0, 0.0
    for face in grid.faces:
        axes = list(grid.axes)
        axes[face.axis] = torch.tensor([face.place], dtype=torch.float64)
        found = -face.data
        for coefficient, order in face.condition.functional:
            orders = [order if k == face.axis else 0 for k in range(len(axes))]
            value = posterior.on_grid(axes, derivative=orders)
            found = found + coefficient * value.squeeze(face.axis)
        misfit += float(found.square().sum())
        size += float(face.data.square().sum())
    # faces of a much smaller solution than the inside's are rounding
    size = max(size, float(posterior.coefficients.square().mean()))
    return (misfit / size) ** 0.5 if size > 0 else 0.0
