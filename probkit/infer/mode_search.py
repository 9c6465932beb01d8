"""The mode of a smooth density: L-BFGS until close, then Newton steps.

Progress is measured by the Newton decrement sqrt(g' H^-1 g), the distance to the mode in posterior
standard deviations; it does not change with the units of the unknowns. Where a dense Hessian is not
positive definite, a multiple of the identity is added until it is,

    (H + t I) d = -g,     t = 0, then from 1e-6 of the largest diagonal entry of H by tens.

A vanishing gradient does not make a mode: it vanishes at saddles too, such as the point where the
scale of a hierarchy is zero and all its offsets are. Where a dense Hessian at such a point has a
negative eigenvalue, the search looks along its eigenvector, both ways, and goes on from the highest
density there.

Cost: a gradient for each trial of an L-BFGS step; a Hessian for each Newton step, or one at the
end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import NotPositiveDefiniteError, NumericalError
from probkit.infer.densities import SmoothDensity
from probkit.infer.gaussian_at_mode import Precision, solve_precision
from probkit.infer.protocols import State, StepInfo
from probkit.infer.quasi_newton import LineSearch, Memory, direction, remember, wolfe_search

__all__ = ["ModeSearch"]

_MEMORY = 10
_CLOSE = 1e-2
_AT_ROUNDING, _COARSE = 1e-3, 0.05
_SHIFTS = 12
_LOOKED_AT = 500
"""unknowns up to which a dense Hessian is computed to look at the end of L-BFGS"""
_REACH = 8
"""steps away from a saddle go from 2^-8 to 2^8"""
_GAIN = 1e-10
_SADDLE = 1e-6


@dataclass(frozen=True)
class ModeSearch:
    """Steps of the search, as pure functions of a state.

    Args:
        density: what to maximise.
        tolerance: Newton decrement (posterior standard deviations) that ends the search.
        newton: finish by Newton steps; without them the decrement is that of L-BFGS, an estimate.

    The state holds ``flat``, ``value``, ``gradient``, the memory of L-BFGS and the phase. A step
    that cannot lower the value ends the search: converged if rounding hides what is left (the
    decrement is below .001, or below .05 and the gain that it promises below the resolution of the
    value, as in float32), and stalled (metric ``stalled``) otherwise. A point from which a
    negative curvature leads upwards is left; where none does although the curvature is clearly
    negative, the search has stalled. ``state["least_curvature"]`` then is the least eigenvalue over
    the largest in absolute value; it is missing where no dense Hessian was looked at: beyond 500
    unknowns without Newton steps, or where a model has no second derivatives.
    """

    density: SmoothDensity
    tolerance: float
    newton: bool

    def initialize(self, generator: torch.Generator) -> State:
        """The first state, at the density's own starting point."""
        flat = self.density.initial(generator)
        value, gradient = self.density.value_and_gradient(flat)
        empty = flat.new_zeros(min(_MEMORY, len(flat)), len(flat))
        return {
            **{"flat": flat, "value": value, "gradient": gradient},
            **{"steps": empty, "changes": empty.clone(), "count": torch.tensor(0)},
            "phase": torch.tensor(0),
        }

    def step(self, state: State, generator: torch.Generator) -> tuple[State, StepInfo]:
        """One L-BFGS or Newton step; deterministic."""
        if int(state["phase"]) == 1:
            return self._newton(state)
        memory = Memory(state["steps"], state["changes"], int(state["count"]))
        along = direction(memory, state["gradient"])
        if float(along @ state["gradient"]) >= 0:  # rounding spoilt the memory
            memory = memory._replace(filled=0)
            along = direction(memory, state["gradient"])
        decrement = _decrement(state["gradient"], along)
        reached = memory.filled > 0 and decrement < (_CLOSE if self.newton else self.tolerance)
        if _is_zero(state["gradient"]) or reached:
            return self._leave(state, decrement, good=True)
        found = self._search(state, along)
        if not found.found and memory.filled > 0:  # a fresh start along the gradient
            memory = memory._replace(filled=0)
            found = self._search(state, -state["gradient"])
        if not found.found:
            return self._leave(state, decrement, good=decrement < _at_rounding(state["value"]))
        memory = remember(memory, found.flat - state["flat"], found.gradient - state["gradient"])
        proposal = {
            **{"flat": found.flat, "value": found.value, "gradient": found.gradient},
            **{"steps": memory.steps, "changes": memory.changes},
            **{"count": torch.tensor(memory.filled), "phase": state["phase"]},
        }
        return proposal, self._info(proposal, decrement)

    def _newton(self, state: State) -> tuple[State, StepInfo]:
        gradient = state["gradient"]
        along, shift = _damped(self.density.curvature(state["flat"]), gradient)
        decrement = _decrement(gradient, along)
        if shift == 0 and decrement < self.tolerance:
            return state, self._info(state, decrement, converged=True)
        found = self._search(state, along)
        if shift > 0 and (not found.found or decrement < self.tolerance):
            return self._look(state, decrement, good=False)
        if not found.found:
            good = shift == 0 and decrement < _at_rounding(state["value"])
            return state, self._info(state, decrement, converged=good, stalled=not good)
        proposal = {
            **state,
            **{"flat": found.flat, "value": found.value, "gradient": found.gradient},
        }
        return proposal, self._info(proposal, decrement)

    def _search(self, state: State, along: Tensor) -> LineSearch:
        point = (state["flat"], state["value"], state["gradient"], along)
        return wolfe_search(self.density.value_and_gradient, *point)

    def _leave(self, state: State, decrement: float, *, good: bool) -> tuple[State, StepInfo]:
        """The end of the first phase: go on by Newton steps, or stop."""
        if self.newton:
            following = {**state, "phase": torch.tensor(1)}
            return following, self._info(following, decrement)
        return self._look(state, decrement, good=good)

    def _look(self, state: State, decrement: float, *, good: bool) -> tuple[State, StepInfo]:
        """The end of the search, unless a negative curvature leads on."""
        matrix = self._dense_curvature(state["flat"])
        if matrix is not None:
            eigenvalues, vectors = torch.linalg.eigh(matrix)
            largest = float(eigenvalues.abs().max())
            least = float(eigenvalues[0]) / largest if largest > 0 else 0.0
            if least < -len(matrix) * torch.finfo(matrix.dtype).eps:
                better = self._downhill(state, vectors[:, 0])
                if better is not None:
                    return better, self._info(better, decrement)
                good = good and least > -_SADDLE
            state = {**state, "least_curvature": torch.tensor(least, dtype=torch.float64)}
        return state, self._info(state, decrement, converged=good, stalled=not good)

    def _downhill(self, state: State, along: Tensor) -> State | None:
        """A first state of L-BFGS at the least value along a line, if it is clearly lower."""
        lengths = 2.0 ** torch.arange(-_REACH, _REACH + 1, dtype=along.dtype, device=along.device)
        points = state["flat"] + torch.cat([lengths, -lengths])[:, None] * along
        values = self.density.values(points)
        flat = points[torch.where(values.isfinite(), values, torch.inf).argmin()]
        value, gradient = self.density.value_and_gradient(flat)
        gain = float(state["value"] - value)
        if not gain > _GAIN * (1 + abs(float(value))) or not bool(gradient.isfinite().all()):
            return None
        return {
            **{"flat": flat, "value": value, "gradient": gradient},
            **{"steps": state["steps"], "changes": state["changes"]},
            **{"count": torch.tensor(0), "phase": torch.tensor(0)},
        }

    def _dense_curvature(self, flat: Tensor) -> Tensor | None:
        """None where it would cost too much, is an operator, or cannot be had."""
        if not self.newton and len(flat) > _LOOKED_AT:
            return None
        try:
            curvature = self.density.curvature(flat)
        except (RuntimeError, NotImplementedError, NumericalError):
            if self.newton:
                raise
            return None  # a model may have first derivatives only
        dense = isinstance(curvature, Tensor) and bool(curvature.isfinite().all())
        return curvature if dense else None

    @staticmethod
    def _info(
        state: State, decrement: float, *, converged: bool = False, stalled: bool = False
    ) -> StepInfo:
        metrics = {
            "decrement": decrement,
            "gradient_norm": float(state["gradient"].norm()),
            "newton": float(state["phase"]),
            "stalled": float(stalled),
        }
        return StepInfo(-float(state["value"]), converged=converged, metrics=metrics)


def _decrement(gradient: Tensor, along: Tensor) -> float:
    return math.sqrt(max(-float(gradient @ along), 0.0))


def _at_rounding(value: Tensor) -> float:
    """Decrement below which rounding hides the gain, half its square, in a sum of this size."""
    hidden = math.sqrt(16 * torch.finfo(value.dtype).eps * (1 + abs(float(value))))
    return max(_AT_ROUNDING, min(hidden, _COARSE))


def _is_zero(gradient: Tensor) -> bool:
    return not bool(gradient.any())


def _damped(
    curvature: Precision, gradient: Float[Tensor, " size"]
) -> tuple[Float[Tensor, " size"], float]:
    """The Newton direction and the shift it needed."""
    if not isinstance(curvature, Tensor):
        return -solve_precision(curvature, gradient), 0.0
    scale = float(curvature.diagonal().abs().max()) or 1.0
    identity = torch.eye(len(gradient), dtype=gradient.dtype, device=gradient.device)
    for power in range(-1, _SHIFTS):
        shift = 0.0 if power < 0 else scale * 10.0 ** (power - 6)
        try:
            return -solve_precision(curvature + shift * identity, gradient), shift
        except NotPositiveDefiniteError:
            continue
    return -gradient / scale, scale
