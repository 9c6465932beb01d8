"""What an evolution equation makes of its initial data: exponents in time of its free solutions.

A standing wave shows its frequency in time neither in the source nor on the faces. With frequencies
w of the initial data along the other axes, the roots s of

    sum_t a_t prod_k (i w_k)^(o_tk) s^(o_t,time) = 0

are the exponents of the equation's free solutions exp(s t); they tell which functions of time the
basis needs. Coefficients that vary enter by their mean.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probkit.pde.problem import Problem, Term
from probkit.pde.spectrum import periodogram

__all__ = ["characteristic_columns", "is_time"]

_VISIBLE = 1e-8
_MOST = 40
_STEEPEST = 30.0


def is_time(problem: Problem, axis: int) -> bool:
    """Whether all conditions along an axis hold at its low end."""
    own = [c for c in problem.conditions if isinstance(c.where, tuple) and c.where[0] == axis]
    return bool(own) and all(c.kind in ("initial", "velocity") for c in own)


def characteristic_columns(
    problem: Problem,
    axis: int,
    columns: Sequence[Tensor],
    axes: Sequence[Float[Tensor, " n_k"]],
    mean: Callable[[Term], float],
) -> Float[Tensor, "n k"]:
    """Real and imaginary parts of exp(s t) over the points of the time axis.

    Args:
        problem: with its linear terms.
        axis: of time.
        columns: what the problem shows along every side.
        axes: coordinates along every side.
        mean: the mean coefficient of a term.
    """
    others = [k for k in range(len(axes)) if k != axis]
    most = max(round(_MOST ** (1 / len(others))), 2)
    speeds = [_speeds(columns[k], axes[k], most) for k in others]
    t = axes[axis]
    length = float(t[-1] - t[0])
    found = []
    for point in itertools.product(*speeds):
        for root in _exponents(
            problem, axis, dict(zip(others, (speed for speed, _ in point), strict=True)), mean
        ):
            size = math.sqrt(math.prod(share for _, share in point))
            seen = abs(root.imag) < math.pi * (len(t) - 1) / length
            if abs(root.real) * length < _STEEPEST and seen:
                decay = torch.exp(root.real * (t - (t[-1] if root.real > 0 else t[0])))
                angle = root.imag * (t - t[0])
                found += [size * decay * angle.cos(), size * decay * angle.sin()]
    return torch.stack(found, 1) if found else t.new_zeros(len(t), 0)


def _exponents(
    problem: Problem, axis: int, speeds: dict[int, float], mean: Callable[[Term], float]
) -> list[complex]:
    """Roots of the symbol, as a polynomial of the exponent in time."""
    powers = np.zeros(problem.pde.order(axis) + 1, dtype=complex)
    for term in problem.pde.terms:
        factor = complex(mean(term))
        for k, speed in speeds.items():
            factor *= (1j * speed) ** term.orders[k]
        powers[term.orders[axis]] += factor
    return [complex(root) for root in np.roots(powers[::-1])]


def _speeds(columns: Tensor, x: Tensor, most: int) -> list[tuple[float, float]]:
    """Angular frequencies at which the columns have power, and its share of the largest."""
    length = float(x[-1] - x[0])
    grid = torch.arange(0, len(x), dtype=x.dtype) / (2 * length)
    power = periodogram(columns, x, grid)
    power = power / power.max().clamp(min=1e-300)
    # peaks only: the window's lobe around a peak is no frequency of its own
    padded = torch.nn.functional.pad(power[None], (1, 1), value=-1.0)[0]
    peak = (power >= padded[:-2]) & (power >= padded[2:])
    seen = ((power > _VISIBLE) & peak).nonzero()[:, 0]
    seen = seen[:: max(len(seen) // most, 1)]
    return [(2 * math.pi * float(grid[i]), float(power[i])) for i in seen]
