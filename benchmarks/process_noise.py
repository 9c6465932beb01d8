"""Precision of the Matérn process noise against 150-digit arithmetic."""

from __future__ import annotations

import math

import mpmath
import torch

from probkit.statespace.matern import matern_noise

__all__ = ["reference_noise", "t3"]

SMOOTHNESS = (0.5, 1.5, 2.5, 3.5)


def t3(points_per_decade: int = 2) -> float:
    """Largest ``|dQ_ij| / sqrt(Q_ii Q_jj)`` over ``d / lengthscale`` from 1e-12 to 50."""
    decades = math.log10(50) + 12
    count = round(points_per_decade * decades) + 1
    ratios = [10 ** (-12 + decades * i / (count - 1)) for i in range(count)]
    worst = 0.0
    for nu in SMOOTHNESS:
        scaled = [math.sqrt(2 * nu) * ratio for ratio in ratios]
        noise = matern_noise(nu, torch.tensor(scaled, dtype=torch.float64))
        for x, Q in zip(scaled, noise.tolist(), strict=True):
            worst = max(worst, _deviation(Q, reference_noise(nu, x)))
    return worst


def reference_noise(nu: float, x: float) -> mpmath.matrix:
    """``P_inf - A P_inf A'`` of the scaled state, by matrix exponential in 150 digits."""
    with mpmath.workdps(150):
        n = int(nu + 0.5)
        drift = mpmath.matrix(n)
        for i in range(n - 1):
            drift[i, i + 1] = 1
        for k in range(n):
            drift[n - 1, k] = -math.comb(n, k)
        stationary = _stationary(drift, n)
        A = mpmath.expm(drift * mpmath.mpf(x))
        return stationary - A * stationary * A.T


def _stationary(drift: mpmath.matrix, n: int) -> mpmath.matrix:
    """Solve ``F P + P F' + q e_n e_n' = 0`` and scale so that ``P_00 = 1``."""
    system, right = mpmath.matrix(n * n), mpmath.matrix(n * n, 1)
    for i in range(n):
        for j in range(n):
            for k in range(n):
                system[i * n + j, k * n + j] += drift[i, k]
                system[i * n + j, i * n + k] += drift[j, k]
    right[n * n - 1] = -1
    solution = mpmath.lu_solve(system, right)
    P = mpmath.matrix(n)
    for i in range(n):
        for j in range(n):
            P[i, j] = solution[i * n + j] / solution[0]
    return P


def _deviation(Q: list[list[float]], truth: mpmath.matrix) -> float:
    n = len(Q)
    return max(
        float(abs(Q[i][j] - truth[i, j]) / mpmath.sqrt(truth[i, i] * truth[j, j]))
        for i in range(n)
        for j in range(n)
    )
