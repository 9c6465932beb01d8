"""Kalman filter and RTS smoother as a Python loop over grid points, as published with FunBaT.

    predict  m- = A m,  P- = A P A' + Q,  A = expm(F d),  Q = P_inf - A P_inf A'
    update   K = P- H' pinv(H P- H' + V),  m = m- + K (y - H m-),  P = P- - K H P-
    smooth   G = P A' pinv(P-),  ms = m + G (ms+ - m-),  Ps = P + G (Ps+ - P-) G'

One matrix exponential a step in each direction and pseudo-inverses of tiny matrices, as the
authors' code does: O(D n^3), and almost all of the time is Python and dispatch. Kept as the
baseline of the smoother rows and as the inner step of ``functional_tucker_ep``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["LinearModel", "matern_model", "random_pass", "smooth_loop"]


class LinearModel(NamedTuple):
    """``dz = F z dx + noise`` with stationary covariance ``P_inf``, seen through ``H z``."""

    drift: Tensor
    stationary: Tensor
    output: Tensor


def matern_model(nu: float, lengthscale: float, variance: float, rank: int) -> LinearModel:
    """``rank`` independent Matern processes, all values first and then all derivatives."""
    eye = torch.eye(rank, dtype=torch.float64)
    if nu == 0.5:
        return LinearModel(-eye / lengthscale, variance * eye, eye)
    if nu == 1.5:
        rate = math.sqrt(3) / lengthscale
        drift = eye.new_tensor([[0.0, 1.0], [-(rate**2), -2 * rate]])
        stationary = eye.new_tensor([[variance, 0.0], [0.0, rate**2 * variance]])
        output = torch.cat([eye, torch.zeros_like(eye)], dim=1)
        return LinearModel(torch.kron(drift, eye), torch.kron(stationary, eye), output)
    raise ValueError(f"the published code has nu = 1/2 and 3/2 only, got {nu}")


def smooth_loop(
    model: LinearModel,
    gaps: Tensor,
    observation: Callable[[int], tuple[Tensor, Tensor]],
    start: Tensor,
) -> tuple[Tensor, Tensor]:
    """Smoothed means (D, n, 1) and covariances (D, n, n).

    Args:
        model: the process.
        gaps: (D,) distance to the point before; the first is 0.
        observation: grid index -> pseudo-observation (R, 1) and its covariance (R, R).
        start: (n, 1) mean before the first point.
    """
    drift, stationary, output = model
    mean, covariance = start, stationary
    predicted, updated = [], []
    for i in range(len(gaps)):
        transition = torch.matrix_exp(drift * gaps[i])
        noise = stationary - transition @ stationary @ transition.T
        mean = transition @ mean
        covariance = transition @ covariance @ transition.T + noise
        predicted.append((mean, covariance))
        value, spread = observation(i)
        gain = covariance @ output.T @ torch.linalg.pinv(output @ covariance @ output.T + spread)
        mean = mean + gain @ (value - output @ mean)
        covariance = covariance - gain @ output @ covariance
        updated.append((mean, covariance))
    means, covariances = [mean], [covariance]
    for i in range(len(gaps) - 2, -1, -1):
        filtered_mean, filtered_covariance = updated[i]
        next_mean, next_covariance = predicted[i + 1]
        transition = torch.matrix_exp(drift * gaps[i + 1])
        gain = filtered_covariance @ transition.T @ torch.linalg.pinv(next_covariance)
        mean = filtered_mean + gain @ (mean - next_mean)
        covariance = filtered_covariance + gain @ (covariance - next_covariance) @ gain.T
        means.append(mean)
        covariances.append(covariance)
    return torch.stack(means[::-1]), torch.stack(covariances[::-1])


def random_pass(num_points: int, rank: int, seed: int = 0) -> Callable[[], object]:
    """A pass over ``num_points`` random points (nu = 1/2), ready to be timed."""
    generator = torch.Generator().manual_seed(seed)
    options = {"generator": generator, "dtype": torch.float64}
    points = torch.rand(num_points, **options).sort().values * 10
    gaps = torch.diff(points, prepend=points[:1])
    values = torch.randn(num_points, rank, 1, **options)
    spread = torch.eye(rank, dtype=torch.float64) * 0.1
    model = matern_model(0.5, 0.1, 1.0, rank)
    start = torch.zeros(rank, 1, dtype=torch.float64)
    return lambda: smooth_loop(model, gaps, lambda i: (values[i], spread), start)
