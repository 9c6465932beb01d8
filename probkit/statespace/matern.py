"""Exact transition and process noise of half-integer Matérn processes, for any step.

The state is scaled, ``z = (f, f'/lam, f''/lam^2, ...)`` with ``lam = sqrt(2 nu) / lengthscale``, so
that it is dimensionless and ``f`` has variance one. With ``x = lam d`` for a step ``d`` and
``n = nu + 1/2`` states the companion matrix has the one eigenvalue -1, so ``N = F + I`` is
nilpotent and::

    A(x)    = exp(-x) sum_k N^k x^k / k!                                   (k < n)
    a(u)    = last column of A(u) = exp(-u) p(u)
    Q_ij(x) = q int_0^x a_i(u) a_j(u) du = q sum_m c_m m! / 2^(m+1) P(m+1, 2x)

where ``p_i p_j = sum_m c_m u^m`` and ``P`` is the regularised lower incomplete gamma function of
integer order. The usual ``Q = P_inf - A P_inf A'`` cancels and is not even positive definite for
short steps. Here ``P`` of the highest order comes from its series (all terms positive) for small
arguments and from its complement for large ones, and the lower orders follow by adding positive
terms: every entry of ``Q`` is right to rounding relative to ``sqrt(Q_ii Q_jj)``.

Cost: elementwise, about 25 multiply-adds a step and ``O(n^3)`` for the assembly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.statespace.types import LTISDE

__all__ = ["integer_gammainc", "matern_noise", "matern_sde", "matern_step", "num_matern_states"]

_LARGEST_ARGUMENT = 740.0
"""exp(-x) underflows beyond; clamping keeps x^k exp(-x) from becoming inf * 0"""


def num_matern_states(nu: float) -> int:
    """Number of states ``nu + 1/2`` of a half-integer Matérn process.

    Raises:
        ConfigurationError: ``nu`` is not 1/2, 3/2, 5/2 or 7/2.

    Example:
        >>> num_matern_states(1.5)
        2
    """
    if nu not in (0.5, 1.5, 2.5, 3.5):
        raise ConfigurationError(
            message(
                "This Matérn smoothness has no state-space form here",
                where="nu",
                got=nu,
                expected="0.5, 1.5, 2.5 or 3.5",
            )
        )
    return int(nu + 0.5)


def matern_sde(nu: float, lengthscale: Float[Tensor, "*batch"]) -> LTISDE:
    """The unit-variance Matérn process as a stochastic differential equation of the scaled state.

    Args:
        nu: smoothness, 1/2 to 7/2.
        lengthscale: in units of the input.

    Example:
        >>> matern_sde(0.5, torch.tensor(2.0)).F
        tensor([[-0.5000]])
    """
    n = num_matern_states(nu)
    table = _tables(n)
    rate = math.sqrt(2 * nu) / lengthscale[..., None, None]
    batch = lengthscale.shape

    def constant(values: Sequence[Sequence[float]]) -> Tensor:
        tensor = lengthscale.new_tensor(values)
        return tensor.expand(*batch, *tensor.shape)

    last = [[0.0]] * (n - 1) + [[1.0]]
    first = [[1.0] + [0.0] * (n - 1)]
    return LTISDE(
        F=rate * constant(table.drift),
        L=constant(last),
        Qc=rate * constant([[table.diffusion]]),
        H=constant(first),
        P_inf=constant(table.stationary),
    )


def matern_step(nu: float, scaled_steps: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch n n"]:
    """Transition matrices ``A`` for ``scaled_steps = sqrt(2 nu) d / lengthscale >= 0``.

    Example:
        >>> matern_step(1.5, torch.tensor(0.0))
        tensor([[1., 0.],
                [0., 1.]])
    """
    n = num_matern_states(nu)
    x = scaled_steps.clamp(max=_LARGEST_ARGUMENT)
    decay = torch.exp(-x)
    powers = [decay]
    for _ in range(n - 1):
        powers.append(powers[-1] * x)
    return _contract(torch.stack(powers, -1), _tables(n).transition, n)


def matern_noise(nu: float, scaled_steps: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch n n"]:
    """Process noise ``Q`` for ``scaled_steps = sqrt(2 nu) d / lengthscale >= 0``.

    Example:
        >>> f"{matern_noise(0.5, torch.tensor(1e-12, dtype=torch.float64)).item():.10e}"
        '2.0000000000e-12'
    """
    n = num_matern_states(nu)
    gammas = integer_gammainc(2 * scaled_steps, 2 * n - 1)
    return _contract(gammas, _tables(n).noise, n)


def integer_gammainc(x: Float[Tensor, "*batch"], order: int) -> Float[Tensor, "*batch order"]:
    """Regularised lower incomplete gamma functions ``P(1, x), ..., P(order, x)``, ``x >= 0``.

    Relative precision is that of the dtype, down to the smallest arguments; differentiable any
    number of times in ``x``.

    Example:
        >>> integer_gammainc(torch.tensor(0.0), 3)
        tensor([0., 0., 0.])
    """
    values: Tensor = _IntegerGammaInc.apply(x, order)
    return values


class _IntegerGammaInc(torch.autograd.Function):
    """Custom gradient, ``dP(a, x)/dx = x^(a-1) exp(-x) / (a-1)!``: the series is not unrolled."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, order: int) -> Tensor:
        x = x.clamp(max=_LARGEST_ARGUMENT)
        if order == 1:
            return -torch.expm1(-x).unsqueeze(-1)
        terms = _poisson_terms(x, order)
        near = x < order / 2
        small = torch.where(near, x, 0.0)
        coefficients = _series_coefficients(order)
        series = torch.full_like(x, coefficients[-1])
        for coefficient in reversed(coefficients[:-1]):
            series = torch.addcmul(x.new_tensor(coefficient), series, small)
        complement = 1 - sum(reversed(terms[1:order]), terms[0])
        values = [torch.where(near, terms[order] * series, complement)]
        for a in range(order - 1, 0, -1):
            values.append(values[-1] + terms[a])
        return torch.stack(values[::-1], -1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        x, order = inputs
        ctx.save_for_backward(x)
        ctx.order = order

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        density = torch.stack(
            _poisson_terms(x.clamp(max=_LARGEST_ARGUMENT), ctx.order - 1)[: ctx.order], -1
        )
        return (grads[0] * density).sum(-1), None


def _poisson_terms(x: Tensor, highest: int) -> list[Tensor]:
    """``x^k exp(-x) / k!`` for ``k = 0, ..., highest``."""
    terms = [torch.exp(-x)]
    for k in range(1, highest + 1):
        terms.append(terms[-1] * x / k)
    return terms


@cache
def _series_coefficients(order: int) -> list[float]:
    """``order! / (order + k)!`` for the terms ``k`` that matter in float64 at ``order / 2``."""
    coefficients, term = [1.0], 1.0
    while term > 1e-17:
        coefficients.append(coefficients[-1] / (order + len(coefficients)))
        term = coefficients[-1] * (order / 2) ** (len(coefficients) - 1)
    return coefficients


class _Tables(NamedTuple):
    """Exact coefficients of the closed forms for ``n`` states, rounded once to float."""

    drift: list[list[float]]
    transition: list[list[float]]
    noise: list[list[float]]
    stationary: list[list[float]]
    diffusion: float


@cache
def _tables(n: int) -> _Tables:
    drift = [[Fraction(int(j == i + 1)) for j in range(n)] for i in range(n - 1)]
    drift.append([Fraction(-math.comb(n, k)) for k in range(n)])
    nilpotent = [[drift[i][j] + (i == j) for j in range(n)] for i in range(n)]
    power = [[Fraction(int(i == j)) for j in range(n)] for i in range(n)]
    powers = []
    for k in range(n):
        powers.append([[entry / math.factorial(k) for entry in row] for row in power])
        power = [
            [sum((power[i][m] * nilpotent[m][j] for m in range(n)), Fraction(0)) for j in range(n)]
            for i in range(n)
        ]
    columns = [[powers[k][i][n - 1] for k in range(n)] for i in range(n)]
    integrals = [
        [
            sum(
                (columns[i][k] * columns[j][m - k] for k in range(n) if 0 <= m - k < n),
                Fraction(0),
            )
            * Fraction(math.factorial(m), 2 ** (m + 1))
            for i in range(n)
            for j in range(n)
        ]
        for m in range(2 * n - 1)
    ]
    totals = [sum((row[entry] for row in integrals), Fraction(0)) for entry in range(n * n)]
    diffusion = 1 / totals[0]
    return _Tables(
        drift=[[float(entry) for entry in row] for row in drift],
        transition=[[float(entry) for row in matrix for entry in row] for matrix in powers],
        noise=[[float(entry * diffusion) for entry in row] for row in integrals],
        stationary=[[float(totals[i * n + j] * diffusion) for j in range(n)] for i in range(n)],
        diffusion=float(diffusion),
    )


def _contract(basis: Tensor, table: list[list[float]], n: int) -> Tensor:
    return (basis @ basis.new_tensor(table)).unflatten(-1, (n, n))
