"""Limited-memory BFGS and a line search, as pure functions of tensors.

With the last m pairs s_i = z_{i+1} - z_i, y_i = g_{i+1} - g_i, the two-loop recursion gives

    d = -H g,   H = (..(V_1' H_0 V_1).. + rho s s'),   H_0 = (s'y / y'y) I,

and a step length t satisfies the weak Wolfe conditions

    U(z + t d) <= U(z) + c1 t g'd,      g(z + t d)'d >= c2 g'd,

found by bracketing and bisection, which needs no second derivatives and stands infinite values.

Sources: Nocedal, Math. Comp. 35 (1980); Lewis & Overton, Math. Program. 141 (2013).
Cost: O(m d) for a direction; one value and gradient for each trial step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["LineSearch", "Memory", "direction", "remember", "wolfe_search"]

_SUFFICIENT, _CURVATURE = 1e-4, 0.9
_MAX_TRIALS = 40

ValueAndGradient = Callable[[Tensor], tuple[Tensor, Tensor]]


class Memory(NamedTuple):
    """The last steps and changes of the gradient; the latest ``filled`` ones are in use."""

    steps: Float[Tensor, "m size"]
    changes: Float[Tensor, "m size"]
    filled: int


class LineSearch(NamedTuple):
    """Where a line search ended; ``found`` is False if no step lowers the value."""

    flat: Float[Tensor, " size"]
    value: Float[Tensor, ""]
    gradient: Float[Tensor, " size"]
    found: bool


def direction(memory: Memory, gradient: Float[Tensor, " size"]) -> Float[Tensor, " size"]:
    """The quasi-Newton direction; without memory, steepest descent of length at most one.

    Example:
        >>> empty = Memory(torch.zeros(3, 2), torch.zeros(3, 2), 0)
        >>> direction(empty, torch.tensor([0.0, 4.0])).tolist()
        [-0.0, -1.0]
    """
    if memory.filled == 0:
        return -gradient / gradient.norm().clamp(min=1.0)
    steps, changes = memory.steps[-memory.filled :], memory.changes[-memory.filled :]
    rho = 1 / (steps * changes).sum(-1)
    found, weights = gradient, []
    for i in reversed(range(memory.filled)):
        weight = rho[i] * (steps[i] @ found)
        weights.append(weight)
        found = found - weight * changes[i]
    found = found / (rho[-1] * (changes[-1] @ changes[-1]))
    for i, weight in enumerate(reversed(weights)):
        found = found + steps[i] * (weight - rho[i] * (changes[i] @ found))
    return -found


def remember(memory: Memory, step: Tensor, change: Tensor) -> Memory:
    """Add a pair, unless its curvature is not positive; the oldest one is forgotten."""
    if not float(step @ change) > 1e-12 * float(step.norm() * change.norm()):
        return memory
    steps = torch.cat([memory.steps[1:], step[None]])
    changes = torch.cat([memory.changes[1:], change[None]])
    return Memory(steps, changes, min(memory.filled + 1, len(steps)))


def wolfe_search(
    function: ValueAndGradient,
    flat: Float[Tensor, " size"],
    value: Float[Tensor, ""],
    gradient: Float[Tensor, " size"],
    along: Float[Tensor, " size"],
) -> LineSearch:
    """A step along a direction of descent that satisfies the weak Wolfe conditions.

    After 40 trials the best step that lowers the value is taken, if there is one.
    """
    slope, start = float(gradient @ along), float(value)
    low, high, length = 0.0, math.inf, 1.0
    best = LineSearch(flat, value, gradient, False)
    for _ in range(_MAX_TRIALS):
        point = flat + length * along
        new_value, new_gradient = function(point)
        number = float(new_value)
        finite = math.isfinite(number) and bool(new_gradient.isfinite().all())
        if finite and number < float(best.value):
            best = LineSearch(point, new_value, new_gradient, True)
        if not finite or number > start + _SUFFICIENT * length * slope:
            high = length
        elif float(new_gradient @ along) < _CURVATURE * slope:
            low = length
        else:
            return LineSearch(point, new_value, new_gradient, number < start)
        length = (low + high) / 2 if math.isfinite(high) else 2 * low
    return best
