"""Whether a linear problem with exact data has one solution only, whatever its source.

A learned prior hides a free direction: of all solutions that meet the rows it takes the one in its
own harmonics, and reports it as certain. So the homogeneous problem is looked at under a flat
prior: is there a function u on which the operator and the conditions vanish?

    line   min norm(A z) / norm(V z) over harmonics that the points resolve; A the rows of equation
           and conditions, V the values of u at the points. Near rounding, u is free.
    grid   eigenvalues of the second derivatives along each side in closed form: u is free where
           c - sum_k a_k w_k^2 = 0 for some frequencies w_k that the conditions allow.

The values V are there because harmonics on an extended period are not independent on the side: a
weight vector may be free while the function it stands for is not.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import message
from probkit.pde.collocation import Collocation
from probkit.pde.errors import UnsolvableError
from probkit.pde.grid_system import separable
from probkit.pde.problem import Box, Problem

__all__ = ["check_line", "check_resonance", "freedom"]

_MORE = 16
_LEVELS = (1e-14, 1e-13, 1e-12)
_ROUNDING = 1e-11
_RESONANT = 1e-12


def check_line(system: Collocation, iterate: Tensor) -> None:
    """Refuse a linear problem on a line that leaves a function free.

    A free constant alone is not refused: it is chosen by the zero mean.

    Args:
        system: rows of the problem.
        iterate: the solution found, which the error carries.

    Raises:
        UnsolvableError: operator and conditions vanish, to rounding, on some function.
    """
    problem = system.problem
    if problem.pde.dim > 1 or problem.pde.nonlinear is not None or not system.exact:
        return
    size = freedom(system)
    if size < _ROUNDING:
        got = f"a function on which they vanish to {size:.1e} of the operator's size"
        raise _free(got, iterate)


def freedom(system: Collocation) -> float:
    """min norm(A z) / norm(V z) relative to norm(A) / norm(V); about 1e-14 where u is free.

    1 where only a constant is free, or no function is nearly so.
    """
    side = system.sides[0]
    rows = len(system.points)
    num = min(side.num + _MORE, (rows // 2 - 1) // 2)
    if num < 2:
        return 1.0
    finer = replace(system, sides=[replace(side, num=num)])
    operator = finer.linearize(torch.zeros(2 * num + 1, dtype=torch.float64))[0]
    if float(operator[:, 0].abs().max()) == 0:
        return 1.0
    values = finer.value_rows
    return _least_ratio(operator, values)


def _least_ratio(operator: Float[Tensor, "r m"], values: Float[Tensor, "n m"]) -> float:
    """The least of c / g(c): the weights on which the operator is below c make values up to g.

    A bound of the smallest generalised singular value, without an inverse that would amplify the
    rounding of the harmonics' redundancy.
    """
    _, singular, right = torch.linalg.svd(operator, full_matrices=False)
    size, least = float(torch.linalg.matrix_norm(values, 2)), 1.0
    for level in _LEVELS:
        small = singular < level * singular[0]
        if bool(small.any()):
            seen = float(torch.linalg.matrix_norm(values @ right[small].mT, 2)) / size
            least = min(least, level / max(seen, level))
    return least


def check_resonance(problem: Problem) -> None:
    """Refuse a separable linear problem on a grid whose homogeneous problem has a solution.

    Sides with a Robin condition are not looked at.

    Raises:
        UnsolvableError: the zeroth-order coefficient is an eigenvalue.
    """
    if not isinstance(problem.domain, Box) or problem.pde.nonlinear is not None:
        return
    if problem.pde.dim == 1 or not separable(problem):
        return
    terms = problem.pde.terms
    shift = sum(float(t.coefficient) for t in terms if not sum(t.orders))
    along = [
        sum(float(t.coefficient) for t in terms if t.orders[axis])
        for axis in range(problem.pde.dim)
    ]
    if shift * sum(along) <= 0:
        return  # of one sign with the side's parts: no eigenvalue is near
    sums = torch.zeros(1, dtype=torch.float64)
    for axis, coefficient in enumerate(along):
        own = _frequencies(problem, axis, math.sqrt(shift / coefficient) if coefficient else 0.0)
        if own is None:
            return
        sums = (sums[:, None] + coefficient * own.square()).flatten()
        sums = sums[sums.abs() <= 2 * abs(shift)]
    if len(sums) and float((sums - shift).abs().min()) <= _RESONANT * abs(shift):
        got = f"the zeroth-order coefficient {shift:g}, an eigenvalue of the rest"
        raise _free(got, torch.zeros(0, dtype=torch.float64))


def _frequencies(problem: Problem, axis: int, most: float) -> Tensor | None:
    """Radians per unit of what the conditions of an axis allow, to just beyond ``most``."""
    assert isinstance(problem.domain, Box)
    low, high = problem.domain.bounds[axis]
    own = [c for c in problem.conditions if isinstance(c.where, tuple) and c.where[0] == axis]
    count = torch.arange(math.ceil(most * (high - low) / math.pi) + 2, dtype=torch.float64)
    if any(c.kind == "periodic" for c in own):
        return 2 * math.pi * count / (high - low)
    orders = [c.functional[0][1] for c in own if len(c.functional) == 1]
    if len(orders) != 2:
        return None
    start = {0: 1.0, 1: 0.5, 2: 0.0}[sum(orders)]
    return math.pi * (count + start) / (high - low)


def _free(got: str, iterate: Tensor) -> UnsolvableError:
    return UnsolvableError(
        message(
            "Equation and conditions leave part of the solution free",
            where="Problem",
            got=got,
            causes=(
                "a resonance: the zeroth-order coefficient is an eigenvalue",
                "a condition given twice in place of another",
            ),
            remedy="add a condition or data that fix u, or change the coefficient",
        ),
        iterate,
    )
