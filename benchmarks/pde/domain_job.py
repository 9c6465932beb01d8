"""A Poisson problem on a masked grid: ``python -m benchmarks.pde.domain_job SHAPE NUM``."""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.frame import cpu_seconds
from benchmarks.isolate import peak_memory
from probkit.pde import PDE, Box, Condition, GPSolver, Mask, Problem, Term

__all__ = ["solve"]

_Function = Callable[[Tensor], Tensor]
_Domain = tuple[Problem, _Function, _Function]

_LAPLACE = PDE([Term(1.0, (2, 0)), Term(1.0, (0, 2))])


def solve(shape: str, num: int, most: int | None = None) -> dict[str, float]:
    """A Poisson problem with a manufactured solution; error at random points inside."""
    problem, exact, inside = _disc(num) if shape == "disc" else _ell(num)
    solver = GPSolver() if most is None else GPSolver(max_products=most)
    start = cpu_seconds()
    solution = solver.fit(problem)
    seconds, memory = cpu_seconds() - start, peak_memory()
    generator = torch.Generator().manual_seed(0)
    low, high = problem.domain.bounds[0]
    x = low + (high - low) * torch.rand(6000, 2, generator=generator, dtype=torch.float64)
    x = x[inside(x)]
    truth = exact(x)
    return {
        "error": float((solution.mean(x) - truth).norm() / truth.norm()),
        "seconds": seconds,
        "memory": memory,
        "points": len(problem.domain.points()),
    }


def _disc(num: int) -> _Domain:
    def exact(x: Tensor) -> Tensor:
        return torch.sin(6 * x[:, 0]) * torch.cos(5 * x[:, 1]) + torch.exp(x.prod(1))

    def source(x: Tensor) -> Tensor:
        waves = torch.sin(6 * x[:, 0]) * torch.cos(5 * x[:, 1])
        return -61 * waves + x.square().sum(1) * torch.exp(x.prod(1))

    def inside(x: Tensor) -> Tensor:
        return x.square().sum(1) < 1

    angle = torch.arange(4 * num, dtype=torch.float64) * math.tau / (4 * num)
    rim = torch.stack([angle.cos(), angle.sin()], 1)
    mask = Mask(Box([(-1.0, 1.0)] * 2, num), inside)
    return Problem(_LAPLACE, mask, [Condition.dirichlet(rim, exact)], source), exact, inside


def _ell(num: int) -> _Domain:
    k = 4 * math.pi

    def exact(x: Tensor) -> Tensor:
        return torch.sin(k * x[:, 0]) * torch.cos(3 * x[:, 1]) + torch.exp(x.prod(1))

    def source(x: Tensor) -> Tensor:
        waves = torch.sin(k * x[:, 0]) * torch.cos(3 * x[:, 1])
        return -(k**2 + 9) * waves + x.square().sum(1) * torch.exp(x.prod(1))

    def inside(x: Tensor) -> Tensor:
        return ~((x[:, 0] > 0.5) & (x[:, 1] > 0.5))

    corners = [(0, 0), (1, 0), (1, 0.5), (0.5, 0.5), (0.5, 1), (0, 1), (0, 0)]
    vertices = torch.tensor(corners, dtype=torch.float64)
    share = torch.linspace(0, 1, num, dtype=torch.float64)[:, None]
    edges = [a + share * (b - a) for a, b in itertools.pairwise(vertices)]
    mask = Mask(Box([(0.0, 1.0)] * 2, num), inside)
    known = [Condition.dirichlet(torch.cat(edges), exact)]
    return Problem(_LAPLACE, mask, known, source), exact, inside


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(solve(sys.argv[1], int(sys.argv[2]))))
