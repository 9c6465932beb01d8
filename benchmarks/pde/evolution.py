"""P17: heat, wave, Burgers and sine-Gordon on 200 x 200 points of space and time.

Manufactured solutions of ten cycles a side. The viscosities of heat and Burgers are 0.01.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.frame import Context, Line, cpu_seconds, row
from probkit.pde import PDE, Box, Condition, GPSolver, Problem, Term

__all__ = ["EVOLUTIONS", "Evolution", "run_evolutions"]

_K = 20 * math.pi
_NU = 0.01

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Evolution:
    """An equation in (x, t) on the unit square with its solution."""

    pde: PDE
    solution: Function
    source: Function
    velocity: Function | None = None

    def problem(self, num: int) -> Problem:
        ends = [Condition.dirichlet((0, side), self.solution) for side in (0, 1)]
        start = [Condition.initial(1, self.solution)]
        if self.velocity is not None:
            start.append(Condition.velocity(1, self.velocity))
        return Problem(self.pde, Box([(0.0, 1.0)] * 2, num), [*ends, *start], self.source)

    def error(self, found: Tensor, axis: Tensor) -> float:
        grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
        exact = self.solution(grid)
        return float((found.reshape(-1) - exact).norm() / exact.norm())


def _heat(x: Tensor) -> Tensor:
    return torch.exp(-x[:, 1]) * torch.sin(_K * x[:, 0]) + torch.cos(_K * x[:, 1]) * x[:, 0]


def _heat_source(x: Tensor) -> Tensor:
    decaying = torch.exp(-x[:, 1]) * torch.sin(_K * x[:, 0])
    return (_NU * _K**2 - 1) * decaying - _K * torch.sin(_K * x[:, 1]) * x[:, 0]


def _standing(x: Tensor) -> Tensor:
    return torch.sin(_K * x[:, 0]) * torch.cos(_K * x[:, 1])


def _wave(x: Tensor) -> Tensor:
    return _standing(x) + x[:, 0] * torch.sin(3 * x[:, 1])


def _burgers(x: Tensor) -> Tensor:
    return 1 + 0.5 * torch.sin(_K * (x[:, 0] - x[:, 1]))


def _burgers_source(x: Tensor) -> Tensor:
    wave, slope = (
        0.5 * torch.sin(_K * (x[:, 0] - x[:, 1])),
        0.5 * torch.cos(_K * (x[:, 0] - x[:, 1])),
    )
    return -_K * slope + _NU * _K**2 * wave + (1 + wave) * _K * slope


def _kink(x: Tensor) -> Tensor:
    return _standing(x) + 0.5 * x[:, 0]


_STRING = [Term(1.0, (0, 2)), Term(-1.0, (2, 0))]
_DIFFUSION = [Term(1.0, (0, 1)), Term(-_NU, (2, 0))]

EVOLUTIONS = {
    "heat": Evolution(PDE(_DIFFUSION), _heat, _heat_source),
    "wave": Evolution(
        PDE(_STRING),
        _wave,
        lambda x: -9 * x[:, 0] * torch.sin(3 * x[:, 1]),
        lambda x: 3 * x[:, 0],
    ),
    "burgers": Evolution(
        PDE(_DIFFUSION, lambda u, slope: u * slope, [(0, 0), (1, 0)]), _burgers, _burgers_source
    ),
    "sine_gordon": Evolution(
        PDE(_STRING, torch.sin), _kink, lambda x: torch.sin(_kink(x)), lambda x: 0 * x[:, 0]
    ),
}


@row("P17", "equations in space and time")
def evolution(context: Context) -> Iterator[Line]:
    yield from run_evolutions(EVOLUTIONS, context.size(200, 90))


def run_evolutions(cases: Mapping[str, Evolution], num: int) -> Iterator[Line]:
    """Errors of all cases on ``num`` points a side, and the most Newton steps."""
    steps = []
    axis = torch.linspace(0, 1, 300, dtype=torch.float64)
    for name, case in cases.items():
        start = cpu_seconds()
        solution = GPSolver().fit(case.problem(num))
        spent = cpu_seconds() - start
        error = case.error(solution.on_grid([axis, axis]), axis)
        steps.append(solution.diagnostics["newton_steps"])
        ended = "" if solution.status.name == "CONVERGED" else f", {solution.status.name}"
        yield Line(name, f"{name}: error ({steps[-1]} steps, {spent:.0f} CPU s{ended})", error)
    yield Line("steps", "most Newton steps", max(steps))
