"""P1 to P4, P9, P15, P18: problems in one dimension."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from benchmarks.baselines.chebyshev import chebyshev_interpolate, chebyshev_line
from benchmarks.baselines.finite_differences import difference_line
from benchmarks.frame import Context, Line, cpu_seconds, row
from probkit.pde import CASES, PDE, Box, Condition, GPSolver, PDESolution, Points, Problem, Term

_LAPLACE = PDE([Term(1.0, (2,))])
_ENDS = (Condition.dirichlet((0, 0)), Condition.dirichlet((0, 1)))


def solve(problem: Problem) -> tuple[PDESolution, float]:
    """The solution by defaults and the CPU seconds."""
    start = cpu_seconds()
    solution = GPSolver().fit(problem)
    return solution, cpu_seconds() - start


def error_on_line(solution: PDESolution, exact: Callable[[Tensor], Tensor], length: float) -> float:
    """Relative error on 300 points."""
    x = torch.linspace(0, length, 300, dtype=torch.float64)
    return float((solution.mean(x) - exact(x)).norm() / exact(x).norm())


def classical(name: str, num: int) -> dict[str, float]:
    """Errors of Chebyshev collocation and finite differences on a case with as many points."""
    case = CASES[name]
    problem = case.problem(num)
    (bounds,) = problem.domain.bounds

    def exact(x: np.ndarray) -> np.ndarray:
        return case.solution(torch.from_numpy(x)).numpy()

    def source(x: np.ndarray) -> np.ndarray:
        return problem.source(torch.from_numpy(x)).numpy()

    at = np.linspace(*bounds, 300)
    ends = (float(exact(np.array([bounds[0]]))[0]), float(exact(np.array([bounds[1]]))[0]))
    x, u = chebyshev_line(source, ends, bounds, num)
    found = {"chebyshev": chebyshev_interpolate(x, at) @ u}
    for order in (2, 4):
        x, u = difference_line(source, ends, bounds, num, order)
        found[f"fd{order}"] = np.interp(at, x, u)
    truth = exact(at)
    return {n: float(np.linalg.norm(v - truth) / np.linalg.norm(truth)) for n, v in found.items()}


@row("P1", "sin 100x, N = 400, defaults")
def first_case(context: Context) -> Iterator[Line]:
    case = CASES["poisson_sin100"]
    solution, spent = solve(case.problem())
    yield Line("error", "sin 100x: error", case.error(solution))
    yield Line("time", "sin 100x: CPU s", spent)


@row("P2", "the paper's other cases on a line, one set of defaults")
def other_cases(context: Context) -> Iterator[Line]:
    for name in ("mix", "sin6cos100", "xsin200", "sin500"):
        case = CASES[f"poisson_{name}"]
        solution, spent = solve(case.problem())
        other = classical(f"poisson_{name}", case.num)
        what = f"{name}, N = {case.num}: error ({spent:.2f} CPU s; baseline: Chebyshev)"
        yield Line(name, what, case.error(solution), other["chebyshev"])
        yield Line("", f"{name}: error of finite differences, order 2", other["fd2"])


@row("P3", "2.1 points a wavelength")
def few_points(context: Context) -> Iterator[Line]:
    case = CASES["poisson_sin100"]
    solution, _ = solve(case.problem(210))
    other = classical("poisson_sin100", 210)
    yield Line("error", "sin 100x, N = 210: error", case.error(solution))
    yield Line("chebyshev", "Chebyshev, N = 210: error", other["chebyshev"])
    yield Line("fd2", "finite differences of order 2, N = 210: error", other["fd2"])
    yield Line("", "finite differences of order 4, N = 210: error", other["fd4"])


@row("P4", "Allen-Cahn on a line")
def allen_cahn(context: Context) -> Iterator[Line]:
    for name in ("sin100", "sin6cos100", "mix", "xsin200", "sin500"):
        case = CASES[f"allen_cahn_{name}"]
        solution, _ = solve(case.problem())
        key = name if name in ("sin100", "sin6cos100", "mix") else ""
        steps = solution.diagnostics["newton_steps"]
        ended = float(solution.status.name == "CONVERGED")
        yield Line(key, f"Allen-Cahn {name}: error", case.error(solution))
        yield Line(key and f"{key}_steps", f"Allen-Cahn {name}: Newton steps", steps)
        yield Line(key and f"{key}_ended", f"Allen-Cahn {name}: ended by its own rule", ended)


@row("P9", "variable coefficients, slopes, scattered points, periods")
def other_conditions(context: Context) -> Iterator[Line]:
    exact, problem = _variable_coefficient()
    yield Line(
        "variable",
        "(a u')' + 10 x u, Neumann and Robin, N = 300: error",
        *_one(problem, exact, 1.0),
    )
    x = torch.rand(300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ends = [Condition.dirichlet((0, 0), 0.0), Condition.dirichlet((0, 1), math.sin(50))]
    problem = Problem(_LAPLACE, Points(x, [(0.0, 1.0)]), ends, lambda x: -2500 * torch.sin(50 * x))
    scattered = _one(problem, lambda x: torch.sin(50 * x), 1.0)
    yield Line("scattered", "300 random points: error", *scattered)
    pde = PDE([Term(1.0, (2,)), Term(-1.0, (0,))])
    box = Box([(0.0, 2 * math.pi)], 200)
    problem = Problem(pde, box, [Condition.periodic(0)], lambda x: -1601 * torch.sin(40 * x))
    periodic = _one(problem, lambda x: torch.sin(40 * x), 2 * math.pi)
    yield Line("periodic", "periodic sin 40x: error", *periodic)


@row("P15", "no silent failure")
def flags(context: Context) -> Iterator[Line]:
    coarse, _ = solve(CASES["poisson_sin100"].problem(150))
    flagged = float(coarse.diagnostics["under_resolved"])
    yield Line("aliased", "sin 100x, N = 150, f as a function: flagged under-resolved", flagged)
    x = torch.linspace(0, 2 * math.pi, 150, dtype=torch.float64)
    box = Box([(0.0, 2 * math.pi)], 150)
    near, _ = solve(Problem(_LAPLACE, box, _ENDS, torch.sin(70 * x)))
    flagged = float(near.diagnostics["near_nyquist"])
    yield Line("nyquist", "sin 70x, N = 150, f as an array: flagged near Nyquist", flagged)
    fine, _ = solve(CASES["poisson_sin100"].problem(210))
    wrong = float(fine.diagnostics["under_resolved"])
    yield Line("false_alarm", "sin 100x, N = 210: flagged under-resolved", wrong)
    problem = CASES["poisson_mix"].problem(400)
    solution, _ = solve(problem)
    x = problem.domain.points()[:, 0]
    misfit = solution.mean(x, derivative=(2,)) - problem.source(x)
    again = float(misfit.norm() / problem.source(x).norm())
    gap = abs(again - solution.residual_norms["equation"])
    yield Line("residual", "reported residual norm against a recomputed one", gap)


@row("P18", "a sharp layer")
def layer(context: Context) -> Iterator[Line]:
    def exact(x: Tensor) -> Tensor:
        return torch.tanh(40 * (x - 0.5))

    ours, other = against_chebyshev(exact)
    what = "tanh(40(x - 1/2)), N = 300: error (baseline: Chebyshev)"
    yield Line("error", what, ours, other)


def against_chebyshev(exact: Callable[[Tensor], Tensor], num: int = 300) -> tuple[float, float]:
    """Errors on u'' = f with u given at 0 and 1: ours, and Chebyshev's with as many points."""

    def source(x: Tensor) -> Tensor:
        leaf = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(exact(leaf).sum(), leaf, create_graph=True)
        return torch.autograd.grad(slope.sum(), leaf)[0]

    ends = [Condition.dirichlet((0, side), exact) for side in (0, 1)]
    solution, _ = solve(Problem(_LAPLACE, Box([(0.0, 1.0)], num), ends, source))
    at = np.linspace(0, 1, 300)
    low, high = exact(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
    x, u = chebyshev_line(lambda x: source(torch.from_numpy(x)).numpy(), (low, high), (0, 1), num)
    truth = exact(torch.from_numpy(at)).numpy()
    other = np.linalg.norm(chebyshev_interpolate(x, at) @ u - truth) / np.linalg.norm(truth)
    return error_on_line(solution, exact, 1.0), float(other)


def _one(problem: Problem, exact: Callable[[Tensor], Tensor], length: float) -> tuple[float]:
    return (error_on_line(solve(problem)[0], exact, length),)


def _variable_coefficient() -> tuple[Callable[[Tensor], Tensor], Problem]:
    def exact(x: Tensor) -> Tensor:
        return torch.sin(50 * x) + x**2

    def slope(x: Tensor) -> Tensor:
        return 50 * torch.cos(50 * x) + 2 * x

    def source(x: Tensor) -> Tensor:
        flux = 3 * torch.cos(3 * x) * slope(x)
        bend = (2 + torch.sin(3 * x)) * (-2500 * torch.sin(50 * x) + 2)
        return -(flux + bend) + 10 * x * exact(x)

    pde = PDE(
        [
            Term(lambda x: -(2 + torch.sin(3 * x)), (2,)),
            Term(lambda x: -3 * torch.cos(3 * x), (1,)),
            Term(lambda x: 10 * x, (0,)),
        ]
    )
    conditions = [
        Condition.neumann((0, 0), slope),
        Condition.robin((0, 1), lambda x: exact(x) + slope(x)),
    ]
    return exact, Problem(pde, Box([(0.0, 1.0)], 300), conditions, source)
