"""Least squares over products of side functions: the route for all that is not a Kronecker sum.

Time-dependent problems, variable coefficients, masked domains, curved boundaries, nonlinear terms
with derivatives, noisy data. The equation's rows and those of the conditions are applied, never
formed; z are the whitened weights of the products kept.

    exact   min sum_b norm(A_b z - y_b)^2 + v norm(z)^2,  v at rounding  (linalg.sketched)
    noisy   (sum_b A_b'A_b + I) z = sum_b A_b'y_b                        (linalg.weight_space)
    mixed   as exact, every row over its standard deviation, v of a vague prior  (pde.mixed)

Rows of exact data are weighed by the operator's size over the root of their number, conditions a
hundred times more, so that an answer does not depend on the number of points. An exact source
beside noisy conditions or data is mixed. Newton steps linearise the pointwise part; the sampled
root is kept while it preconditions well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from probkit.infer.protocols import State, StepInfo
from probkit.linalg.sketched import RowBlock, sampled_root, sketched_solve
from probkit.linalg.weight_space import WeightSpacePosterior, weight_space_posterior
from probkit.pde.grid_problem import Face, GridProblem
from probkit.pde.grid_rows import DenseRows, GridRows, choose_products
from probkit.pde.mixed import (
    EXACT_SHARE,
    VAGUE,
    has_noisy_rows,
    left_over,
    source_size,
    value_size,
)
from probkit.pde.newton import damped_step, pointwise
from probkit.pde.settings import SolverSettings
from probkit.pde.validation import on_points

__all__ = ["RowsSystem"]

_STEP_TOLERANCE, _NOISY_STEP_TOLERANCE = 1e-9, 1e-6  # the latter: of the weights' solve
_CONDITION_WEIGHT = 100.0
_EXACT_BESIDE_NOISE = 1e-4
_ROUNDING = 1e-15
_CUTOFF, _NOISY_CUTOFF = 1e-13, 1e-7
_REFRESH = 99


class RowsSystem:
    """A problem on a grid as rows over products.

    Args:
        grid: the problem with its bases.
        settings: of the solver.
        generator: of the sampled rows.
    """

    def __init__(
        self, grid: GridProblem, settings: SolverSettings, generator: torch.Generator
    ) -> None:
        self.grid, self.problem, self.pde = grid, grid.problem, grid.problem.pde
        self.exact = self.problem.noise == 0
        self.mixed = self.exact and has_noisy_rows(self.problem)
        cutoff = _CUTOFF if self.exact else _NOISY_CUTOFF
        self.products = choose_products(grid.bases, settings.max_products, cutoff)
        size = grid.operator_size
        count = len(grid.source)
        self._size, self._values = size, self._values_beside()
        weight = 1 / (size * math.sqrt(count)) if self.exact else 1 / self.problem.noise
        if self.mixed:
            weight = 1 / (EXACT_SHARE * source_size(grid.source, size, self._values))
        terms = [(grid.coefficient(t.coefficient), t.orders) for t in self.pde.terms]
        self.equation = GridRows(
            self.products, grid.axes, terms, grid.source, weight, where=grid.where
        )
        self.beside = self._beside()
        self._generator = generator
        self._root: Tensor | None = None
        self._stale = False
        self.variance = self._rounding_variance()
        if self.mixed:
            self.variance = 1 / VAGUE if settings.prior is None else 1.0
        self.last: WeightSpacePosterior | None = None

    def initialize(self, generator: torch.Generator) -> State:
        """u = 0."""
        zero = torch.zeros(len(self.products.scale), dtype=torch.float64)
        return {"z": zero, "count": torch.zeros((), dtype=torch.int64)}

    def step(self, state: State, generator: torch.Generator) -> tuple[State, StepInfo]:
        """One linear solve: a Newton step where there is a nonlinear part."""
        old, done = state["z"], int(state["count"])
        blocks = self.linearize(old)
        new, inner = self._solve(blocks, old, fresh=done < 2)
        change = self._change(old, new)  # of the full step: a halved one may be small far away
        nonlinear = self.pde.nonlinear is not None
        if nonlinear and done > 0:
            rounding = 1e-8 * self._scale()
            new = damped_step(self.objective, old, new, rounding)
        tolerance = _STEP_TOLERANCE if self.exact else _NOISY_STEP_TOLERANCE
        info = StepInfo(
            -self.total(new),
            converged=not nonlinear or change < tolerance,
            metrics={"change": change, "inner": float(inner)},
            message="newton",
        )
        return {"z": new, "count": state["count"] + 1}, info

    def linearize(self, weights: Tensor) -> list[RowBlock]:
        """Blocks of the equation linearised at ``weights``, conditions and data."""
        equation = self.equation
        if self.pde.nonlinear is not None:
            arguments = self.pde.nonlinear_arguments
            values = [equation.values(weights, orders) for orders in arguments]
            value, slopes = pointwise(self.pde.nonlinear, values)
            target = equation.target - value
            terms = []
            for orders, at, slope in zip(arguments, values, slopes, strict=True):
                target = target + slope * at
                terms.append((equation.on_grid(slope), orders))
            equation = equation.with_terms(terms, target)
        return [equation, *self.beside]

    def relax(self, weights: Tensor) -> Tensor:
        """Solve once more, where exact rows beside noisy ones have what they miss as their sd."""
        factor = left_over(self.equation.weight * self.residual(weights))
        self.equation = replace(self.equation, weight=self.equation.weight / factor)
        for k, (block, noise) in enumerate(zip(self.beside, self._noises, strict=True)):
            if not noise > 0:
                misfit = block.apply(weights) - block.weight * block.target
                self.beside[k] = replace(block, weight=block.weight / left_over(misfit))
        return self._solve(self.linearize(weights), weights, fresh=True)[0]

    def residual(self, weights: Tensor) -> Tensor:
        """F(u) - f at the points of the domain, unweighed."""
        found = self.equation.apply(weights) / self.equation.weight - self.equation.target
        if self.pde.nonlinear is not None:
            values = [self.equation.values(weights, o) for o in self.pde.nonlinear_arguments]
            found = found + pointwise(self.pde.nonlinear, values)[0]
        return found

    def condition_residual(self, weights: Tensor) -> Tensor:
        """Weighed misfit of conditions and data."""
        return _misfit(self.beside, weights)

    def condition_target(self) -> float:
        """Norm of what conditions and data ask for, weighed."""
        return math.sqrt(sum(float((b.weight * b.target).square().sum()) for b in self.beside))

    def total(self, weights: Tensor) -> float:
        """Norm of all weighed residuals."""
        equation = self.equation.weight * self.residual(weights)
        return float(torch.cat([equation, self.condition_residual(weights)]).norm())

    def objective(self, weights: Tensor) -> float:
        """Root of what the linear solves minimise: residuals and prior."""
        prior = self.variance if self.exact else 1.0
        return math.hypot(self.total(weights), math.sqrt(prior) * float(weights.norm()))

    def root(self) -> Tensor:
        """The sampled root of the last linearisation."""
        assert self._root is not None
        return self._root

    def degrees_of_freedom(self) -> int:
        """Rows left over."""
        rows = len(self.equation.target) + sum(len(b.target) for b in self.beside)
        return max(rows - len(self.products.scale), 1)

    def _solve(
        self, blocks: Sequence[RowBlock], present: Tensor, *, fresh: bool
    ) -> tuple[Tensor, int]:
        if not self.exact:
            self.last = weight_space_posterior(blocks, self._generator)
            return self.last.mean, self.last.num_steps
        if self._root is None or self._stale or fresh:
            self._root = sampled_root(blocks, self.variance, self._generator)
        right = [b.weight * b.target - b.apply(present) for b in blocks]
        found = sketched_solve(blocks, right, self._root, self.variance, present=present)
        self._stale = found.num_steps > _REFRESH
        return found.value, found.num_steps

    def _rounding_variance(self) -> float:
        probe = torch.randn(
            len(self.products.scale), generator=self._generator, dtype=torch.float64
        )
        size = sum(float(b.apply(probe).square().sum()) for b in [self.equation, *self.beside])
        if not self.pde.terms:
            size += 1.0
        return _ROUNDING**2 * size

    def _scale(self) -> float:
        source = self.equation.weight * self.equation.target
        return float(source.norm()) + self.condition_target() + 1e-300

    def _change(self, old: Tensor, new: Tensor) -> float:
        zeroth = (0,) * self.pde.dim
        size = float(self.equation.values(new, zeroth).norm())
        return float(self.equation.values(new - old, zeroth).norm()) / size if size > 0 else 0.0

    def _values_beside(self) -> list[Tensor]:
        """What conditions on faces and at points ask for, and the data."""
        found = [face.data for face in self.grid.faces]
        for c in self.problem.conditions:
            if isinstance(c.where, Tensor):
                where = f"value of the {c.kind} condition"
                found.append(on_points(c.value, c.where.to(torch.float64), where))
        if self.problem.data is not None:
            x, y, _ = self.problem.data
            found.append(on_points(y, torch.as_tensor(x, dtype=torch.float64), "data"))
        return found

    def _beside(self) -> list[GridRows | DenseRows]:
        """Conditions on faces, those at points, and data; ``_noises`` are theirs."""
        self._noises = [face.condition.noise for face in self.grid.faces]
        found: list[GridRows | DenseRows] = [self._face_rows(face) for face in self.grid.faces]
        for condition in self.problem.conditions:
            if isinstance(condition.where, Tensor):
                x = condition.where.to(torch.float64)
                rows = sum(
                    (
                        c * self.products.rows(x, [o if k == 0 else 0 for k in range(self.pde.dim)])
                        for c, o in condition.functional
                    ),
                    x.new_zeros(()),
                )
                value = on_points(condition.value, x, f"value of the {condition.kind} condition")
                found.append(DenseRows(rows, value, self._weight(value, condition.noise)))
                self._noises.append(condition.noise)
        if self.problem.data is not None:
            x, y, sd = self.problem.data
            x = torch.as_tensor(x, dtype=torch.float64)
            y = on_points(y, x, "data")
            rows = self.products.rows(x, (0,) * self.pde.dim)
            found.append(DenseRows(rows, y, self._weight(y, sd)))
            self._noises.append(sd)
        return found

    def _face_rows(self, face: Face) -> GridRows:
        axes = list(self.grid.axes)
        axes[face.axis] = torch.tensor([face.place], dtype=torch.float64)
        terms: list[tuple[float | Tensor, tuple[int, ...]]] = [
            (c, tuple(o if k == face.axis else 0 for k in range(self.pde.dim)))
            for c, o in face.condition.functional
        ]
        target = face.data.reshape(-1)
        weight = self._weight(target, face.condition.noise)
        return GridRows(self.products, axes, terms, target, weight)

    def _weight(self, target: Tensor, noise: float) -> float:
        if self.exact and not self.mixed:
            return _CONDITION_WEIGHT / math.sqrt(len(target))
        if noise > 0:
            return 1 / noise
        if self.mixed:
            source = float(self.grid.source.abs().max()) / self._size
            return 1 / (EXACT_SHARE * (max(value_size(self._values), source) or 1.0))
        scale = max(float(target.abs().max()), self.problem.noise / self._size, 1e-12)
        return 1 / (_EXACT_BESIDE_NOISE * scale)


def _misfit(blocks: Sequence[RowBlock], weights: Tensor) -> Tensor:
    parts = [b.apply(weights) - b.weight * b.target for b in blocks]
    return torch.cat([weights.new_zeros(0), *parts])
