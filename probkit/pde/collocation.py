"""Collocation in harmonic features: rows of the equation and its conditions, solved whitened.

The unknown is u = sum_j x_j phi_j with x_j ~ N(0, s_j). Every term of the equation, and every
condition, is a row of known numbers (:mod:`probkit.pde.harmonics`), so that variable coefficients,
slopes, scattered points and observations of u are all the same: y = A x + e.

    sweep    s_j <- s_j z_j^2 / g_j            MacKay's update, the paper's Jeffreys prior on s
    Newton   F(u_k) + F'(u_k) (u - u_k) = f    damped, from the linear solution

Exact rows are weighed by the size of the operator at the highest frequency of the source, so that
all have comparable size; noisy ones by their standard deviation, beside which exact ones have one
near rounding (:mod:`probkit.pde.mixed`). Cost: one singular value
decomposition of (points x features) a step. Fang et al., ICLR 2024, arXiv 2311.04465, maximise the
same posterior over u and s by 1e5 to 1e6 Adam steps on an unwhitened u with jitter 1e-6.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.infer.evidence import update_scale
from probkit.infer.protocols import State, StepInfo
from probkit.linalg.whitened import WhitenedPosterior, whitened_solve
from probkit.pde.harmonics import Harmonics, product_rows
from probkit.pde.mixed import (
    EXACT_SHARE,
    VAGUE,
    has_noisy_rows,
    left_over,
    source_size,
    value_size,
)
from probkit.pde.newton import damped_step, pointwise
from probkit.pde.problem import PDE, Box, Condition, Problem
from probkit.pde.validation import on_points

__all__ = ["Collocation", "condition_points"]

_STEP_TOLERANCE = 1e-10
_CONDITION_WEIGHT = 100.0
_EXACT = 1e-6
_FLOOR = 1e-24
_NOISY_FLOOR = 1e-12
_SHARED = 2.0


@dataclass
class Collocation:
    """A problem written in the features of a box.

    Args:
        problem: what to solve.
        sides: features of every side.
        weight: of the equation's rows, if the source is exact.
        num_sweeps: updates of the prior variances before the solve.
        max_newton: limit on Newton steps.
    """

    problem: Problem
    sides: Sequence[Harmonics]
    weight: float
    num_sweeps: int
    max_newton: int
    points: Tensor = field(init=False)
    source: Tensor = field(init=False)

    def __post_init__(self) -> None:
        domain, pde = self.problem.domain, self.problem.pde
        shape = domain.sizes if isinstance(domain, Box) else None
        self.points = domain.points()
        self.source = on_points(self.problem.source, self.points, "source", shape)
        self._linear = equation_rows(pde, self.sides, self.points)
        self._arguments = [
            product_rows(self.sides, self.points, orders)
            for orders in (pde.nonlinear_arguments if pde.nonlinear else [])
        ]
        self._value = product_rows(self.sides, self.points, (0,) * pde.dim)
        self.exact = self.problem.noise == 0 and not has_noisy_rows(self.problem)
        self.mixed = self.problem.noise == 0 and not self.exact
        self._others = self._other_rows()
        self._equation_weight = self._weight_of_equation([value for _, value, _ in self._others])
        self._weights = self._weights_beside()
        self._beside, self._beside_target = self._weighed()

    @property
    def noise(self) -> float | None:
        """Variance of the weighed rows; None for exact data."""
        return None if self.exact else 1.0

    @property
    def all_zero(self) -> bool:
        """Whether source, conditions and data are zero throughout."""
        return not bool(self.source.any()) and not bool(self._beside_target.any())

    def initialize(self, scale: Tensor) -> Callable[[torch.Generator], State]:
        """The first state of the loop, from first prior variances."""
        start: State = {
            "scale": scale,
            "weights": torch.zeros_like(scale),
            "count": torch.zeros((), dtype=torch.int64),
        }
        return lambda generator: start

    def step(self, state: State, generator: torch.Generator) -> tuple[State, StepInfo]:
        """One evidence sweep, or one solve (a Newton step where there is a nonlinear part)."""
        done = int(state["count"])
        following = {**state, "count": state["count"] + 1}
        rows, target = self.linearize(state["weights"])
        found = whitened_solve(rows, target, state["scale"], noise=self.noise)
        if done < self.num_sweeps:
            following["scale"] = self._updated(found, state["scale"], done + 1 == self.num_sweeps)
            return following, StepInfo(found.log_evidence, message="evidence")
        weights = found.weights
        change = self._change(state["weights"], weights)  # of the full step, not of a halved one
        if self.problem.pde.nonlinear is not None and done > self.num_sweeps:
            rounding = 1e-7 * self._equation_weight * float(self.source.norm() + 1e-300)
            weights = damped_step(
                lambda w: self._objective(w, found), state["weights"], weights, rounding
            )
        following["weights"] = weights
        linear = self.problem.pde.nonlinear is None
        info = StepInfo(
            -float(self.residual(weights).norm()),
            converged=linear or change < _STEP_TOLERANCE,
            segment=1,
            metrics={"change": change},
            message="newton",
        )
        return following, info

    def _updated(self, found: WhitenedPosterior, scale: Tensor, last: bool) -> Tensor:
        """One evidence update.

        Noise leaves little to say of a single harmonic, so that neighbours share their scale then:
        a scale of its own for each would fit the noise and make the error bars too narrow. Beside
        an exact source the shape is known from it, and only the size is learned.
        """
        if self.mixed:
            size = float(found.mean.square().sum() / found.leverage().sum())
            return scale * (size or 1.0) * (VAGUE if last else 1.0)
        moment = scale * found.mean.square()
        variance = scale * (1 - found.leverage())
        if self.exact:
            new = update_scale(scale, moment, variance, rule="mackay", floor=_FLOOR)
            return new / new.max()
        groups = self._groups()
        shared = scale.new_zeros(int(groups.max()) + 1).index_copy(0, groups, scale)
        shared = update_scale(
            shared, moment, variance, rule="mackay", groups=groups, floor=_NOISY_FLOOR
        )
        return shared[groups]

    def _groups(self) -> Tensor:
        """Number of the band of neighbouring harmonics that every feature belongs to."""
        total = torch.zeros(1, dtype=torch.int64)
        for side in self.sides:
            own = (side.frequencies() * side.length / _SHARED).floor().long()
            total = (total[:, None] * (int(own.max()) + 1) + own).flatten()
        return torch.unique(total, return_inverse=True)[1]

    def posterior(self, state: State) -> WhitenedPosterior:
        """Posterior of the weights, linearised at the last state."""
        rows, target = self.linearize(state["weights"])
        return whitened_solve(rows, target, state["scale"], noise=self.noise)

    def relax(self, weights: Tensor) -> None:
        """Let exact rows beside noisy ones have what they miss as their standard deviation."""
        self._equation_weight /= left_over(self._equation_weight * self.residual(weights))
        for k, (rows, value, noise) in enumerate(self._others):
            if not noise > 0:
                self._weights[k] /= left_over(self._weights[k] * (rows @ weights - value))
        self._beside, self._beside_target = self._weighed()

    def linearize(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Weighed rows and targets of the equation linearised at ``weights``, then the others."""
        rows, target = self._linear, self.source
        if self.problem.pde.nonlinear is not None:
            values = [a @ weights for a in self._arguments]
            value, slopes = pointwise(self.problem.pde.nonlinear, values)
            target = target - value
            for argument, at, slope in zip(self._arguments, values, slopes, strict=True):
                rows = rows + slope[:, None] * argument
                target = target + slope * at
        weight = self._equation_weight
        return (
            torch.cat([weight * rows, self._beside]),
            torch.cat([weight * target, self._beside_target]),
        )

    @property
    def value_rows(self) -> Float[Tensor, "n m"]:
        """Rows of u at the collocation points."""
        return self._value

    def values(self, weights: Tensor) -> Float[Tensor, " n"]:
        """u at the collocation points."""
        return self._value @ weights

    def residual(self, weights: Tensor) -> Float[Tensor, " n"]:
        """F(u) - f at the collocation points, unweighed."""
        return residual_at(self.problem.pde, self.sides, self.points, weights, self.source)

    def condition_residual(self, weights: Tensor) -> Float[Tensor, " b"]:
        """Weighed misfit of conditions and data."""
        return self._beside @ weights - self._beside_target

    def _objective(self, weights: Tensor, found: WhitenedPosterior) -> float:
        """Root of what the linear solve ``found`` minimises: residuals and prior."""
        equation = self._equation_weight * self.residual(weights)
        white = torch.where(found.root > 0, weights / found.root, 0.0)
        prior = found.noise**0.5 * white
        return float(torch.cat([equation, self.condition_residual(weights), prior]).norm())

    def _change(self, old: Tensor, new: Tensor) -> float:
        size = float((self._value @ new).norm())
        return float((self._value @ (new - old)).norm()) / size if size > 0 else 0.0

    def _other_rows(self) -> list[tuple[Tensor, Tensor, float]]:
        """Unweighed rows, values and noise of every condition, then of the data."""
        found = []
        for condition in self.problem.conditions:
            if condition.kind != "periodic":
                rows, value = condition_rows(condition, self.problem, self.sides)
                found.append((rows, value, condition.noise))
        if self.problem.data is not None:
            x, y, sd = self.problem.data
            x = torch.as_tensor(x, dtype=torch.float64)
            x = x[:, None] if x.dim() == 1 else x
            rows = product_rows(self.sides, x, (0,) * x.shape[1])
            found.append((rows, on_points(y, x, "data"), sd))
        return found

    def _weight_of_equation(self, values: list[Tensor]) -> float:
        if self.exact:
            return self.weight
        if self.problem.noise > 0:
            return 1 / self.problem.noise
        return 1 / (EXACT_SHARE * source_size(self.source, 1 / self.weight, values))

    def _weights_beside(self) -> list[float]:
        """Weights of the conditions and the data."""
        largest, found = value_size([value for _, value, _ in self._others]), []
        for _, value, noise in self._others:
            if self.exact:
                found.append(_CONDITION_WEIGHT)
            elif noise > 0:
                found.append(1 / noise)
            elif self.mixed:
                scale = max(largest, float(self.source.abs().max()) * self.weight) or 1.0
                found.append(1 / (EXACT_SHARE * scale))
            else:
                scale = max(float(value.abs().max()), self.problem.noise * self.weight, 1e-12)
                found.append(1 / (_EXACT * scale))
        return found

    def _weighed(self) -> tuple[Tensor, Tensor]:
        rows, targets = [self._linear.new_zeros(0, self._linear.shape[1])], []
        for weight, (own, value, _) in zip(self._weights, self._others, strict=True):
            rows.append(weight * own)
            targets.append(weight * value)
        return torch.cat(rows), torch.cat(targets) if targets else self._linear.new_zeros(0)


def equation_rows(
    pde: PDE, sides: Sequence[Harmonics], x: Float[Tensor, "n d"]
) -> Float[Tensor, "n m"]:
    """Rows of the linear part at points."""
    total = x.new_zeros(len(x), math.prod(side.num_features for side in sides))
    for term in pde.terms:
        coefficient = on_points(term.coefficient, x, f"coefficient of {term}")
        total = total + coefficient[:, None] * product_rows(sides, x, term.orders)
    return total


def residual_at(
    pde: PDE, sides: Sequence[Harmonics], x: Tensor, weights: Tensor, source: Tensor
) -> Float[Tensor, " n"]:
    """F(u) - f at any points."""
    value = equation_rows(pde, sides, x) @ weights - source
    if pde.nonlinear is not None:
        values = [product_rows(sides, x, a) @ weights for a in pde.nonlinear_arguments]
        value = value + pointwise(pde.nonlinear, values)[0]
    return value


def condition_points(condition: Condition, problem: Problem) -> Float[Tensor, "b d"]:
    """Where a condition holds."""
    if isinstance(condition.where, Tensor):
        return condition.where.to(torch.float64)
    domain = problem.domain
    axis, side = condition.where
    if isinstance(domain, Box):
        return domain.face(axis, side)
    # scattered points have one face only in one dimension: the end of the interval
    return torch.tensor([[domain.bounds[axis][side]]], dtype=torch.float64)


def condition_rows(
    condition: Condition, problem: Problem, sides: Sequence[Harmonics]
) -> tuple[Float[Tensor, "b m"], Float[Tensor, " b"]]:
    """Unweighed rows and values of a condition."""
    x = condition_points(condition, problem)
    axis = condition.where[0] if isinstance(condition.where, tuple) else 0
    rows = x.new_zeros(())
    for coefficient, order in condition.functional:
        orders = [order if k == axis else 0 for k in range(x.shape[1])]
        rows = rows + coefficient * product_rows(sides, x, orders)
    domain = problem.domain
    shape = None
    if isinstance(domain, Box) and isinstance(condition.where, tuple):
        shape = tuple(n for k, n in enumerate(domain.sizes) if k != axis)
    return rows, on_points(condition.value, x, f"value of the {condition.kind} condition", shape)
