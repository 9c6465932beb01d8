"""The paper's algorithm: grid values and spectrum found jointly by Adam, in its fast Toeplitz form.

Maximises over U, log tau_1, log tau_2 and each side's log weights, frequencies and log scales

    log N(U; 0, K) + 200 log N(g; U_boundary, 1 / tau_1) + log N(0; R, 1 / tau_2)

with R = Delta U + reaction - f, K the kernel matrix plus 1e-6 (two dimensions: a Kronecker
product), Delta U = K'' K^-1 U by side, and the authors' start, step length
and jitter; frequencies start on [0, top_frequency], a figure they choose for each problem.
Everything depends on the lag alone: N x Q work for the kernel and one Cholesky factor; their code
builds N x N x Q tensors by nested differentiation.
Cost an epoch: O(N Q + N^3) a side. Source: Fang et al., ICLR 2024, arXiv 2311.04465; the kernels,
constants and start of the authors' code. Reported is the last iterate.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["AdamCollocationBaseline", "AdamCollocationBaseline2D"]

_JITTER = 1e-6
_RATE = 1e-2
_BOUNDARY_WEIGHT = 200.0
_Side = tuple[Tensor, Tensor, Tensor]


class AdamCollocationBaseline:
    """u'' (+ u^3 - u) = f on [0, length], u given at the ends.

    Args:
        source: f at points (n,).
        ends: u at both ends.
        length, num: side and points.
        top_frequency: highest frequency of the start, cycles per unit.
        kind: "student" or "gaussian".
        cubic: whether u^3 - u is added.
        num_components: Q.
    """

    def __init__(
        self,
        source: Callable[[Tensor], Tensor],
        ends: tuple[float, float],
        length: float,
        num: int,
        top_frequency: float,
        *,
        kind: str = "student",
        cubic: bool = False,
        num_components: int = 30,
    ) -> None:
        self.x = torch.linspace(0, length, num, dtype=torch.float64)
        self.kind, self.cubic = kind, cubic
        self._source, self._ends = source(self.x), torch.tensor(ends, dtype=torch.float64)
        self._side = _start(num_components, top_frequency)
        self.values = torch.zeros(num, dtype=torch.float64)
        self._log_precisions = torch.zeros(2, dtype=torch.float64)
        parameters = [*self._side, self.values, self._log_precisions]
        self._optimizer = torch.optim.Adam([p.requires_grad_(True) for p in parameters], lr=_RATE)

    def run(self, num_epochs: int) -> float:
        """Make epochs; the loss before the last one."""
        return _descend(self._optimizer, self.loss, num_epochs)

    def loss(self) -> Tensor:
        """Minus the log joint density, up to a constant."""
        factor, second = _matrices(self._side, self.x, self.kind)
        weights = torch.cholesky_solve(self.values[:, None], factor)[:, 0]
        prior = -factor.diagonal().log().sum() - 0.5 * self.values @ weights
        residual = second @ weights + _reaction(self.values, self.cubic) - self._source
        boundary = self.values[[0, -1]] - self._ends
        return -_joint(prior, boundary, residual, self._log_precisions)

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """u at points (n,)."""
        factor, _ = _matrices(self._side, self.x, self.kind)
        weights = torch.cholesky_solve(self.values[:, None], factor)[:, 0]
        return _lag_values(self._side, x[:, None] - self.x, self.kind)[0] @ weights


class AdamCollocationBaseline2D:
    """u_xx + u_yy (+ u^3 - u) = f on [0, length]^2, u given on the sides.

    Args:
        source, boundary: f and u at points (n, 2).
        others: see :class:`AdamCollocationBaseline`.
    """

    def __init__(
        self,
        source: Callable[[Tensor], Tensor],
        boundary: Callable[[Tensor], Tensor],
        length: float,
        num: int,
        top_frequency: float,
        *,
        kind: str = "student",
        cubic: bool = False,
        num_components: int = 30,
    ) -> None:
        self.x = torch.linspace(0, length, num, dtype=torch.float64)
        self.kind, self.cubic = kind, cubic
        grid = torch.cartesian_prod(self.x, self.x)
        self._source = source(grid).reshape(num, num)
        edge = torch.ones(num, num, dtype=torch.bool)
        edge[1:-1, 1:-1] = False
        self._edge, self._known = edge, boundary(grid).reshape(num, num)[edge]
        self._sides = [_start(num_components, top_frequency) for _ in range(2)]
        self.values = torch.zeros(num, num, dtype=torch.float64)
        self._log_precisions = torch.zeros(2, dtype=torch.float64)
        parameters = [*self._sides[0], *self._sides[1], self.values, self._log_precisions]
        self._optimizer = torch.optim.Adam([p.requires_grad_(True) for p in parameters], lr=_RATE)

    def run(self, num_epochs: int) -> float:
        """Make epochs; the loss before the last one."""
        return _descend(self._optimizer, self.loss, num_epochs)

    def loss(self) -> Tensor:
        """Minus the log joint density, up to a constant."""
        (left, left_second), (right, right_second) = (
            _matrices(side, self.x, self.kind) for side in self._sides
        )
        rows = torch.cholesky_solve(self.values, left)
        columns = torch.cholesky_solve(self.values.mT, right)
        half_log = left.diagonal().log().sum() + right.diagonal().log().sum()
        # U' (K1 x K2)^-1 U as a product of the two one-sided solves
        prior = -len(self.x) * half_log - 0.5 * (rows * columns.mT).sum()
        laplacian = left_second @ rows + (right_second @ columns).mT
        residual = laplacian + _reaction(self.values, self.cubic) - self._source
        boundary = self.values[self._edge] - self._known
        return -_joint(prior, boundary, residual, self._log_precisions)

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """u on the grid of points (n,) by (n,)."""
        inner = self.values
        for side in self._sides:
            factor, _ = _matrices(side, self.x, self.kind)
            cross = _lag_values(side, x[:, None] - self.x, self.kind)[0]
            inner = (cross @ torch.cholesky_solve(inner, factor)).mT
        return inner


def _start(num_components: int, top_frequency: float) -> _Side:
    log_weights = torch.full((num_components,), -math.log(num_components), dtype=torch.float64)
    frequencies = torch.linspace(0, top_frequency, num_components, dtype=torch.float64)
    return log_weights, frequencies, torch.zeros_like(log_weights)


def _lag_values(side: _Side, lag: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """k and k'' at lags."""
    log_weights, frequencies, log_scales = side
    d = lag.abs()[..., None]
    weights, speed = log_weights.exp(), 2 * math.pi * frequencies
    cosine, sine = torch.cos(speed * d), torch.sin(speed * d)
    if kind == "gaussian":
        r = log_scales.exp()
        envelope = torch.exp(-r * d * d)
        first, second = -2 * r * d * envelope, (4 * r * r * d * d - 2 * r) * envelope
    else:
        a = math.sqrt(5) * log_scales.exp()
        fall = torch.exp(-a * d)
        envelope = (1 + a * d + a * a * d * d / 3) * fall
        first = -(a * a / 3) * d * (1 + a * d) * fall
        second = -(a * a / 3) * (1 + a * d - a * a * d * d) * fall
    curvature = second * cosine - 2 * speed * first * sine - speed * speed * envelope * cosine
    return (weights * envelope * cosine).sum(-1), (weights * curvature).sum(-1)


def _matrices(side: _Side, x: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Cholesky factor of K plus jitter, and K''."""
    index = torch.arange(len(x))
    gap = (index[:, None] - index).abs()
    value, second = _lag_values(side, x - x[0], kind)
    covariance = value[gap] + _JITTER * torch.eye(len(x), dtype=x.dtype)
    return torch.linalg.cholesky(covariance), second[gap]


def _joint(prior: Tensor, boundary: Tensor, residual: Tensor, log_precisions: Tensor) -> Tensor:
    tau, v = log_precisions
    # one half log tau for each of the ends, as in one dimension
    data = 0.5 * boundary.numel() * tau - 0.5 * tau.exp() * boundary.square().sum()
    equation = 0.5 * residual.numel() * v - 0.5 * v.exp() * residual.square().sum()
    return prior + _BOUNDARY_WEIGHT * data + equation


def _reaction(u: Tensor, cubic: bool) -> Tensor | float:
    return u**3 - u if cubic else 0.0


def _descend(
    optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor], num_epochs: int
) -> float:
    value = math.nan
    for _ in range(num_epochs):
        optimizer.zero_grad()
        objective = loss()
        objective.backward()
        optimizer.step()
        value = float(objective.detach())
    return value
