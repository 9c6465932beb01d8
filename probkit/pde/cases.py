"""The manufactured problems of the paper, by name, with their exact solutions.

Fang et al., ICLR 2024, arXiv 2311.04465, with the sizes of the authors' configuration files.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from probkit.pde.problem import PDE, Box, Condition, Problem, Term

__all__ = ["CASES", "Case"]

_Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """A problem whose solution is known.

    Args:
        solution: u at points ``(n,)`` in one dimension, ``(n, d)`` in more.
        build: the problem for a number of points a side.
        num: points a side in the paper.
    """

    solution: _Function
    build: Callable[[int], Problem]
    num: int

    def problem(self, num: int | None = None) -> Problem:
        """The problem with ``num`` points a side, the paper's number if None."""
        return self.build(num or self.num)


def _cubic(u: Tensor) -> Tensor:
    return u**3 - u


def _line(u: _Function, second: _Function, length: float, num: int, *, cubic: bool) -> Case:
    """u'' (+ u^3 - u) = f on [0, length] with the ends given."""

    def source(x: Tensor) -> Tensor:
        return second(x) + (_cubic(u(x)) if cubic else 0)

    def build(count: int) -> Problem:
        ends = [Condition.dirichlet((0, side), lambda x: u(x)) for side in (0, 1)]
        pde = PDE([Term(1.0, (2,))], nonlinear=_cubic if cubic else None)
        return Problem(pde, Box([(0.0, length)], count), ends, source)

    return Case(u, build, num)


_LINES: dict[str, tuple[_Function, _Function, float, int]] = {
    "sin100": (
        lambda x: torch.sin(100 * x),
        lambda x: -1e4 * torch.sin(100 * x),
        2 * math.pi,
        400,
    ),
    "mix": (
        lambda x: torch.sin(x) + 0.1 * torch.sin(20 * x) + 0.05 * torch.cos(100 * x),
        lambda x: -torch.sin(x) - 40 * torch.sin(20 * x) - 500 * torch.cos(100 * x),
        1.0,
        900,
    ),
    "sin6cos100": (
        lambda x: torch.sin(6 * x) * torch.cos(100 * x),
        lambda x: (
            -10036 * torch.sin(6 * x) * torch.cos(100 * x)
            - 1200 * torch.cos(6 * x) * torch.sin(100 * x)
        ),
        2 * math.pi,
        400,
    ),
    "xsin200": (
        lambda x: x * torch.sin(200 * x),
        lambda x: 400 * torch.cos(200 * x) - 4e4 * x * torch.sin(200 * x),
        2 * math.pi,
        900,
    ),
    "sin500": (
        lambda x: torch.sin(500 * x) - 2 * (x - 0.5) ** 2,
        lambda x: -25e4 * torch.sin(500 * x) - 4,
        1.0,
        400,
    ),
}

CASES: dict[str, Case] = {
    f"{equation}_{name}": _line(*parts, cubic=equation == "allen_cahn")
    for equation in ("poisson", "allen_cahn")
    for name, parts in _LINES.items()
}
