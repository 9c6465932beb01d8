"""The joint density of the paper: grid values, precisions and spectra together.

    log N(U; 0, K_1 x .. x K_d) + 200 log N(g; B U, 1 / tau_1) + log N(0; F[U] - f, 1 / tau_2)

U holds u on the grid of a box. A derivative of u is that of the interpolant, side by side,

    d^o U / dx_k^o = K_k^(o) K_k^-1 U    (a product along axis k)

and so no Gram matrix of derivatives is needed. K_k is a mixture kernel's matrix plus 1e-6; its
entries depend on the lag alone. The weights of a mixture are parameters on the log scale with a
flat prior, which is Jeffreys'; priors registered on a kernel are added.

Cost: O(N_k Q + N_k^3) a side and O(N sum N_k). Source: Fang et al., ICLR 2024, arXiv 2311.04465;
constants and jitter are those of the authors' code, which builds N_k x N_k x Q tensors by nested
differentiation and factorises twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.kernels import SpectralMixtureKernel
from probkit.pde.problem import Box, Condition, Problem
from probkit.pde.validation import on_points

__all__ = ["JITTER", "JointDensity", "derivative_matrix"]

JITTER = 1e-6
_BOUNDARY_WEIGHT = 200.0
_Face = tuple[int, int, tuple[tuple[float, int], ...], Tensor]
"""axis, place on it (first or last), functional, values"""


class _Side(NamedTuple):
    """Cholesky factor of K plus jitter, and K^(o) by order."""

    factor: Tensor
    derivatives: dict[int, Tensor]


class JointDensity:
    """The density of one problem on a box with conditions on its faces.

    Args:
        problem: checked; faces only, not periodic.
        kernels: one a side.
    """

    def __init__(self, problem: Problem, kernels: Sequence[SpectralMixtureKernel]) -> None:
        domain = problem.domain
        assert isinstance(domain, Box)
        self.problem, self.pde, self.kernels = problem, problem.pde, list(kernels)
        self.axes, self.sizes = domain.axes(), domain.sizes
        points = domain.points()
        self.source = on_points(problem.source, points, "source", self.sizes).reshape(self.sizes)
        self._terms = [
            (
                on_points(t.coefficient, points, f"coefficient of {t}", self.sizes).reshape(
                    self.sizes
                ),
                t.orders,
            )
            for t in self.pde.terms
        ]
        self.faces = [self._face(c, domain) for c in problem.conditions]

    def value(
        self, values: Float[Tensor, "*n"], log_precisions: Float[Tensor, " 2"]
    ) -> Float[Tensor, ""]:
        """The log joint density, constants of the normal densities aside."""
        sides = self._sides()
        total = _log_prior([side.factor for side in sides], values)
        data = _log_normal(self._conditions(values, sides), log_precisions[0])
        equation = _log_normal(self._residual(values, sides), log_precisions[1])
        total = total + _BOUNDARY_WEIGHT * data + equation
        for kernel in self.kernels:
            for _, module, prior, closure, _ in kernel.named_priors():
                total = total + prior.log_prob(closure(module)).sum()
        return total

    def misfits(self, values: Float[Tensor, "*n"]) -> tuple[Float[Tensor, "*n"], Tensor]:
        """F(u) - f on the grid, and the misfit of all conditions."""
        sides = self._sides()
        return self._residual(values, sides), self._conditions(values, sides)

    def condition_size(self) -> float:
        """Norm of what the conditions ask for."""
        return math.sqrt(sum(float(data.square().sum()) for _, _, _, data in self.faces))

    def _residual(self, values: Tensor, sides: Sequence[_Side]) -> Tensor:
        found = -self.source
        for coefficient, orders in self._terms:
            found = found + coefficient * _differentiated(values, orders, sides)
        if self.pde.nonlinear is not None:
            arguments = [
                _differentiated(values, orders, sides).reshape(-1)
                for orders in self.pde.nonlinear_arguments
            ]
            found = found + self.pde.nonlinear(*arguments).reshape(self.sizes)
        return found

    def _conditions(self, values: Tensor, sides: Sequence[_Side]) -> Tensor:
        found = [values.new_zeros(0)]
        for axis, place, functional, data in self.faces:
            total = -data
            for coefficient, order in functional:
                if order == 0:
                    along = values.select(axis, place)
                else:
                    own = sides[axis]
                    row = torch.cholesky_solve(own.derivatives[order][place, :, None], own.factor)
                    along = torch.tensordot(values, row[:, 0], dims=([axis], [0]))
                total = total + coefficient * along
            found.append(total.reshape(-1))
        return torch.cat(found)

    def _sides(self) -> list[_Side]:
        """What the kernels of the sides say at their present parameters."""
        taken = [orders for _, orders in self._terms]
        if self.pde.nonlinear is not None:
            taken += self.pde.nonlinear_arguments
        wanted = {(axis, order) for orders in taken for axis, order in enumerate(orders)}
        wanted |= {(a, o) for a, _, functional, _ in self.faces for _, o in functional}
        found = []
        for axis, (kernel, x) in enumerate(zip(self.kernels, self.axes, strict=True)):
            jitter = JITTER * torch.eye(len(x), dtype=x.dtype)
            factor = torch.linalg.cholesky(derivative_matrix(kernel, x, 0) + jitter)
            orders = sorted(o for a, o in wanted if a == axis and o > 0)
            found.append(_Side(factor, {o: derivative_matrix(kernel, x, o) for o in orders}))
        return found

    def _face(self, condition: Condition, domain: Box) -> _Face:
        assert isinstance(condition.where, tuple)
        axis, side = condition.where
        shape = tuple(n for k, n in enumerate(self.sizes) if k != axis)
        where = f"value of the {condition.kind} condition"
        data = on_points(condition.value, domain.face(axis, side), where, shape).reshape(shape)
        return axis, -1 if side else 0, condition.functional, data


def derivative_matrix(
    kernel: SpectralMixtureKernel, x: Float[Tensor, " n"], order: int
) -> Float[Tensor, "n n"]:
    """Covariance of the ``order``-th derivative with the value, on even points.

    Example:
        >>> kernel = SpectralMixtureKernel(1)
        >>> x = torch.linspace(0, 1, 5, dtype=torch.float64)
        >>> slope = derivative_matrix(kernel, x, 1)
        >>> bool(torch.allclose(slope, -slope.mT))
        True
    """
    lag = kernel.lag_covariance(x - x[0], order)
    index = torch.arange(len(x), device=x.device)
    gap = index[:, None] - index
    found = lag[gap.abs()]
    return found if order % 2 == 0 else torch.where(gap < 0, -found, found)


def _log_prior(factors: Sequence[Tensor], values: Tensor) -> Tensor:
    """log N(values; 0, K_1 x .. x K_d), up to its constant."""
    white, logdet = values, values.new_zeros(())
    for axis, factor in enumerate(factors):
        columns = white.movedim(axis, 0)
        solved = torch.linalg.solve_triangular(
            factor, columns.reshape(len(factor), -1), upper=False
        )
        white = solved.reshape(columns.shape).movedim(0, axis)
        logdet = logdet + values.numel() / len(factor) * factor.diagonal().log().sum()
    return -logdet - 0.5 * white.square().sum()


def _log_normal(misfit: Tensor, log_precision: Tensor) -> Tensor:
    return 0.5 * (misfit.numel() * log_precision - log_precision.exp() * misfit.square().sum())


def _differentiated(values: Tensor, orders: Sequence[int], sides: Sequence[_Side]) -> Tensor:
    for axis, order in enumerate(orders):
        if order:
            columns = values.movedim(axis, 0)
            flat = columns.reshape(len(columns), -1)
            weights = torch.cholesky_solve(flat, sides[axis].factor)
            found = sides[axis].derivatives[order] @ weights
            values = found.reshape(columns.shape).movedim(0, axis)
    return values
