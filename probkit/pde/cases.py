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
from probkit.pde.solution import PDESolution

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

    def error(self, solution: PDESolution, num: int = 300) -> float:
        """Relative error of a solution on an even grid of ``num`` points a side."""
        bounds = self.problem(8).domain.bounds
        axes = [torch.linspace(low, high, num, dtype=torch.float64) for low, high in bounds]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
        exact = self.solution(axes[0] if len(axes) == 1 else grid.reshape(-1, len(axes)))
        found = solution.on_grid(axes).reshape(-1)
        return float((found - exact).norm() / exact.norm())


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


def _square(u: _Function, laplacian: _Function, length: float, num: int, *, cubic: bool) -> Case:
    """u_xx + u_yy (+ u^3 - u) = f on a square with the sides given."""

    def source(x: Tensor) -> Tensor:
        return laplacian(x) + (_cubic(u(x)) if cubic else 0)

    def build(count: int) -> Problem:
        sides = [Condition.dirichlet((a, s), u) for a in (0, 1) for s in (0, 1)]
        pde = PDE([Term(1.0, (2, 0)), Term(1.0, (0, 2))], nonlinear=_cubic if cubic else None)
        return Problem(pde, Box([(0.0, length)] * 2, count), sides, source)

    return Case(u, build, num)


def _product(x: Tensor) -> Tensor:
    return torch.sin(100 * x[:, 0]) * torch.sin(100 * x[:, 1])


def _sum(x: Tensor) -> Tensor:
    return (torch.sin(6 * x) * torch.cos(20 * x)).sum(1)


def _sum_second(x: Tensor) -> Tensor:
    first = -436 * torch.sin(6 * x) * torch.cos(20 * x)
    return (first - 240 * torch.cos(6 * x) * torch.sin(20 * x)).sum(1)


def _scales(x: Tensor) -> Tensor:
    return torch.sin(x) + 0.1 * torch.sin(20 * x) + torch.cos(100 * x)


def _scales_second(x: Tensor) -> Tensor:
    return -torch.sin(x) - 40 * torch.sin(20 * x) - 1e4 * torch.cos(100 * x)


def _mixed(x: Tensor) -> Tensor:
    return _scales(x).prod(1)


def _mixed_laplacian(x: Tensor) -> Tensor:
    value, second = _scales(x), _scales_second(x)
    return second[:, 0] * value[:, 1] + value[:, 0] * second[:, 1]


def _travelling(x: Tensor) -> Tensor:
    return torch.sin(x[:, 0] - 200 * x[:, 1])


def _advection(num: int) -> Problem:
    """u_t + 200 u_x = 0 from its inflow and initial data; the paper gives all four sides."""
    pde = PDE([Term(1.0, (0, 1)), Term(200.0, (1, 0))])
    known = [Condition.dirichlet((0, 0), _travelling), Condition.initial(1, _travelling)]
    return Problem(pde, Box([(0.0, 1.0)] * 2, num), known, 0.0)


CASES: dict[str, Case] = {
    f"{equation}_{name}": _line(*parts, cubic=equation == "allen_cahn")
    for equation in ("poisson", "allen_cahn")
    for name, parts in _LINES.items()
} | {
    "poisson2d_sin100": _square(
        _product, lambda x: -2e4 * _product(x), 2 * math.pi, 400, cubic=False
    ),
    "poisson2d_sum": _square(_sum, _sum_second, 2 * math.pi, 200, cubic=False),
    "allen_cahn2d_mix": _square(_mixed, _mixed_laplacian, 1.0, 400, cubic=True),
    "advection_sin200": Case(_travelling, _advection, 200),
}
