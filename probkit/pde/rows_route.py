"""Any equation on a grid or a mask in two or more dimensions, exact or noisy: least squares."""

from __future__ import annotations

import torch
from torch import Tensor

from probkit.infer import FitResult
from probkit.pde.diagnostics import Checked, diagnose
from probkit.pde.grid_posterior import GridPosterior
from probkit.pde.grid_problem import GridProblem
from probkit.pde.grid_spread import DrawSpread, RootSpread, Spread
from probkit.pde.problem import Problem
from probkit.pde.rows_system import RowsSystem
from probkit.pde.settings import SolverSettings
from probkit.random import Seed, as_generator

__all__ = ["solve_rows"]


def solve_rows(
    settings: SolverSettings, problem: Problem, reason: str, seed: Seed, progress: bool
) -> FitResult:
    """Solve by least squares over products of side functions.

    Raises:
        NumericalError: the iteration did not converge, or Newton's method diverged.
    """
    generator = as_generator(seed)
    grid = GridProblem(problem, settings, generator)
    system = RowsSystem(grid, settings, generator)
    run = settings.run(problem, "rows", reason, (grid.source,), seed, progress)
    outcome = run.loop(system.step, system.initialize, settings.max_newton)
    weights = outcome.state["z"]
    if system.mixed:
        weights = system.relax(weights)
    posterior = GridPosterior(grid.bases, system.products.tensor(weights), _spread(system, weights))
    result = FitResult(
        outcome.status,
        posterior,
        {n: torch.tensor(c, dtype=torch.float64).numpy() for n, c in outcome.history.items()},
        provenance=run.record(outcome.state),
        detail=outcome.detail,
        state=outcome.state,
    )
    size = grid.operator_size
    target = system.condition_target()
    misfit = float(system.condition_residual(weights).norm())
    checked = Checked(
        misfit=system.residual(weights),
        conditions=misfit / target if target > 0 else misfit,
        size=float(grid.source.square().mean().sqrt()) or size,
        operator_size=size,
        num_features=len(weights),
        rank=len(weights),
        bands=[b.band for b in grid.bases],
        log_evidence=float("nan") if system.last is None else system.last.log_evidence,
    )

    def mean_at(x: Tensor, orders: tuple[int, ...]) -> Tensor:
        return posterior.mean_at(x, derivative=orders)

    result.diagnostics = diagnose(problem, checked, outcome.history, mean_at)
    return result


def _spread(system: RowsSystem, weights: Tensor) -> Spread:
    products = system.products
    sizes = [len(b.sizes) for b in products.bases]
    if system.last is None:
        noise = system.total(weights) ** 2 / system.degrees_of_freedom()
        noise = 1.0 if system.mixed else noise  # the rows carry their standard deviations
        return RootSpread(system.root(), products.index, products.scale, sizes, noise)
    if system.last.root is None:
        assert system.last.draws is not None
        return DrawSpread(system.last.draws, products.index, products.scale, sizes)
    return RootSpread(system.last.root, products.index, products.scale, sizes, 1.0)
