"""P21: the table of users' mistakes; each must end in an error or a warning that names it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from benchmarks.frame import Context, Line, row
from probkit.errors import ProbkitError, ProbkitWarning
from probkit.pde import (
    CASES,
    PDE,
    Box,
    Condition,
    GPSolver,
    Mask,
    PDESolution,
    Points,
    Problem,
    Term,
    Unknown,
)

_LAPLACE = PDE([Term(1.0, (2,))])
_BOX = Box([(0.0, 1.0)], 40)
_ENDS = (Condition.dirichlet((0, 0)), Condition.dirichlet((0, 1)))


@row("P21", "mistakes")
def mistakes(context: Context) -> Iterator[Line]:
    outcomes = {name: check() for name, check in _CHECKS.items()}
    for name, good in outcomes.items():
        yield Line("", f"{name}: handled", float(good))
    yield Line("handled", "share of mistakes handled", sum(outcomes.values()) / len(outcomes))


def _raises(problem: Problem, *words: str, solver: GPSolver | None = None) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ProbkitWarning)
            (solver or GPSolver()).fit(problem)
    except ProbkitError as error:
        return all(word in str(error) for word in words)
    return False


def _warned(problem: Problem, words: str) -> tuple[bool, PDESolution]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        solution = GPSolver().fit(problem)
    return any(words in str(w.message) for w in caught), solution


def _float32() -> bool:
    x = torch.linspace(0, 1, 40)
    warned, solution = _warned(Problem(_LAPLACE, _BOX, _ENDS, -torch.sin(x)), "float64")
    return warned and solution.mean([0.5]).dtype == torch.float64


def _not_finite() -> bool:
    f = np.ones(40)
    f[[3, 5]] = np.nan, np.inf
    return _raises(Problem(_LAPLACE, _BOX, _ENDS, f), "source", "2 values are NaN")


def _nan_boundary() -> bool:
    ends = [_ENDS[0], Condition.dirichlet((0, 1), math.nan)]
    return _raises(Problem(_LAPLACE, _BOX, ends, 1.0), "dirichlet", "NaN")


def _coarse() -> bool:
    x = torch.linspace(0, 2 * math.pi, 150, dtype=torch.float64)
    problem = Problem(_LAPLACE, Box([(0.0, 2 * math.pi)], 150), _ENDS, torch.sin(70 * x))
    warned, solution = _warned(problem, "Nyquist")
    return warned and solution.diagnostics["near_nyquist"]


def _aliased() -> bool:
    warned, solution = _warned(CASES["poisson_sin100"].problem(150), "too coarse")
    return warned and solution.diagnostics["under_resolved"]


def _swapped_axes() -> bool:
    pde = PDE([Term(1.0, (2, 0)), Term(1.0, (0, 2))])
    sides = [Condition.dirichlet((a, s)) for a in (0, 1) for s in (0, 1)]
    box = Box([(0.0, 1.0)] * 2, (12, 14))
    values = torch.ones(14, 12, dtype=torch.float64)
    return _raises(Problem(pde, box, sides, values), "(14, 12)", "(12, 14)", "ij")


def _corners() -> bool:
    pde = PDE([Term(1.0, (2, 0)), Term(1.0, (0, 2))])
    sides = [Condition.dirichlet((a, s), float(a)) for a in (0, 1) for s in (0, 1)]
    return _raises(Problem(pde, Box([(0.0, 1.0)] * 2, 20), sides, 0.0), "corner", "1")


def _null_space() -> bool:
    slopes = [Condition.neumann((0, 0)), Condition.neumann((0, 1))]
    box = Box([(0.0, 1.0)], 80)
    good = Problem(_LAPLACE, box, slopes, lambda x: torch.cos(3 * math.pi * x))
    warned, solution = _warned(good, "constant")
    mean = float(solution.mean(torch.linspace(0, 1, 80, dtype=torch.float64)).mean())
    bad = Problem(_LAPLACE, box, slopes, lambda x: 1 + 0 * x)
    return warned and abs(mean) < 1e-8 and _raises(bad, "cannot be met", "fluxes")


def _resonance() -> bool:
    helmholtz = PDE([Term(1.0, (2,)), Term((10 * math.pi) ** 2, (0,))])
    problem = Problem(
        helmholtz, Box([(0.0, 1.0)], 100), _ENDS, lambda x: torch.sin(31.41592653589793 * x)
    )
    return _raises(problem, "condition number", "resonance")


def _divergence() -> bool:
    # the Bratu problem has no solution beyond 3.51
    bratu = PDE([Term(1.0, (2,))], nonlinear=lambda u: 20 * torch.exp(u))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProbkitWarning)
        solution = GPSolver().fit(Problem(bratu, _BOX, _ENDS, 0.0))
    told = solution.status.name != "CONVERGED" and bool(solution.diagnostics["newton_changes"])
    return told and bool(torch.isfinite(solution.mean([0.5])).all())


def _uneven() -> bool:
    x = torch.rand(120, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ends = [_ENDS[0], Condition.dirichlet((0, 1), math.sin(9.0))]
    domain = Points(x, [(0.0, 1.0)])
    solution = GPSolver().fit(Problem(_LAPLACE, domain, ends, lambda x: -81 * torch.sin(9 * x)))
    return abs(float(solution.mean([0.37])) - math.sin(9 * 0.37)) < 1e-8


def _too_many() -> bool:
    x = torch.rand(300_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pde = PDE([Term(1.0, (2, 0)), Term(1.0, (0, 2))])
    known = [Condition.dirichlet(x[:10], 0.0)]
    return _raises(Problem(pde, Points(x), known, 1.0), "GB", "Mask")


def _outflow() -> bool:
    def exact(x: Tensor) -> Tensor:
        return torch.sin(5 * (x[:, 0] - x[:, 1]))

    pde = PDE([Term(1.0, (0, 1)), Term(1.0, (1, 0))])
    known = [
        Condition.dirichlet((0, 0), exact),
        Condition.initial(1, exact),
        Condition.dirichlet((0, 1), lambda x: exact(x) + 0.1 * x[:, 1]),
    ]
    problem = Problem(pde, Box([(0.0, 1.0)] * 2, 24), known, 0.0)
    warned, solution = _warned(problem, "more conditions")
    return warned and max(solution.residual_norms.values()) > 1e-4


def _echo() -> bool:
    return "-1 u" in repr(PDE([Term(1.0, (2,)), Term(-1.0, (0,))], nonlinear=lambda u: u**3))


def _missing_faces() -> bool:
    return _raises(Problem(_LAPLACE, _BOX, _ENDS[:1], 1.0), "Too few", "high end")


def _empty_mask() -> bool:
    try:
        Mask(Box([(0.0, 1.0)] * 2, 9), lambda x: x[:, 0] > 2)
    except ProbkitError as error:
        return "inside" in str(error)
    return False


def _unknown() -> bool:
    rate = Unknown("rate", torch.distributions.Uniform(0.0, 1.0))
    return _raises(Problem(PDE([Term(rate, (2,))]), _BOX, _ENDS, 1.0), "rate", "InverseSolver")


def _map_elsewhere() -> bool:
    periodic = Problem(_LAPLACE, _BOX, [Condition.periodic(0)], 1.0)
    return _raises(periodic, "dense", solver=GPSolver(method="map"))


_CHECKS: dict[str, Callable[[], bool]] = {
    "float32 source": _float32,
    "NaN and infinity in the source": _not_finite,
    "NaN in a boundary value": _nan_boundary,
    "source near Nyquist": _coarse,
    "aliased source": _aliased,
    "axes swapped": _swapped_axes,
    "sides that disagree at corners": _corners,
    "slopes only: constant free, or fluxes out of balance": _null_space,
    "resonance": _resonance,
    "Newton without a solution": _divergence,
    "uneven points on a line": _uneven,
    "too many scattered points": _too_many,
    "advection with outflow data": _outflow,
    "sign convention echoed": _echo,
    "missing faces": _missing_faces,
    "empty mask": _empty_mask,
    "unknown coefficient given to the solver": _unknown,
    "the paper's method where it does not apply": _map_elsewhere,
}
