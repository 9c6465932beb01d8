"""One solve on a grid in a process of its own: ``python -m benchmarks.pde.grid_job NAME NUM``."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from benchmarks.baselines.chebyshev import chebyshev_interpolate, chebyshev_square
from benchmarks.baselines.finite_differences import difference_square
from benchmarks.frame import cpu_seconds
from benchmarks.isolate import peak_memory
from probkit.pde import CASES, PDE, Box, Case, Condition, GPSolver, Problem, Term

_SPEED = 10 * math.pi


def main() -> None:
    torch.set_num_threads(1)
    name, num = sys.argv[1], int(sys.argv[2])
    case = Case(_cube_solution, _cube, 100) if name == "cube" else CASES[name]
    problem = case.problem(num or None)
    start = cpu_seconds()
    solution = GPSolver().fit(problem)
    seconds, memory = cpu_seconds() - start, peak_memory()
    found = {
        "error": case.error(solution, 61 if name == "cube" else 300),
        "seconds": seconds,
        "memory": memory,
        "steps": solution.diagnostics["newton_steps"],
    }
    if name.startswith("poisson2d") and not num:
        found |= _classical(case)
    print(json.dumps(found))


def _classical(case: Case) -> dict[str, float]:
    problem = case.problem()
    bounds = problem.domain.bounds[0]
    at = np.linspace(*bounds, 300)

    def flat(function: Callable[[Tensor], Tensor]) -> Callable[..., np.ndarray]:
        def on_grid(x: np.ndarray, y: np.ndarray) -> np.ndarray:
            points = torch.from_numpy(np.stack([x, y], -1).reshape(-1, 2))
            return function(points).numpy().reshape(x.shape)

        return on_grid

    exact, source = flat(case.solution), flat(problem.source)
    truth = exact(*np.meshgrid(at, at, indexing="ij"))
    x, u = chebyshev_square(source, exact, bounds, case.num)
    rows = chebyshev_interpolate(x, at)
    found = {"chebyshev": rows @ u @ rows.T}
    x, u = difference_square(source, exact, bounds, case.num)
    rows = np.stack([np.interp(at, x, unit) for unit in np.eye(len(x))], 1)
    found["fd2"] = rows @ u @ rows.T
    return {n: float(np.linalg.norm(v - truth) / np.linalg.norm(truth)) for n, v in found.items()}


def _cube_solution(x: Tensor) -> Tensor:
    return torch.sin(_SPEED * x).prod(1) + torch.exp(x[:, 0] * x[:, 1]) * torch.cos(x[:, 2])


def _cube(num: int) -> Problem:
    def source(x: Tensor) -> Tensor:
        smooth = torch.exp(x[:, 0] * x[:, 1]) * torch.cos(x[:, 2])
        factor = x[:, 0] ** 2 + x[:, 1] ** 2 - 1
        return -3 * _SPEED**2 * torch.sin(_SPEED * x).prod(1) + factor * smooth

    terms = [Term(1.0, tuple(2 * (j == k) for j in range(3))) for k in range(3)]
    sides = [Condition.dirichlet((a, s), _cube_solution) for a in range(3) for s in (0, 1)]
    return Problem(PDE(terms), Box([(0.0, 1.0)] * 3, num), sides, source)


if __name__ == "__main__":
    main()
