"""Textbook Kalman filter and RTS smoother of a Matern-3/2 process, one point at a time in NumPy.

Shares no code with the library: the reference that the state-space rows are checked against. The
process noise is the integral of the impulse response in closed form, not a difference.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Smoothed", "smooth_matern32"]

Array = NDArray[np.float64]


class Smoothed(NamedTuple):
    """Log likelihood, and means and variances of f, (T,)."""

    log_likelihood: float
    mean: Array
    variance: Array


def smooth_matern32(
    times: Array, y: Array, lengthscale: float, variance: float, noise: float
) -> Smoothed:
    """Filter forwards, smooth backwards; ``noise`` is a variance."""
    rate = np.sqrt(3.0) / lengthscale
    gaps = np.diff(times, prepend=times[0])
    steps = [_step(gap, rate, variance) for gap in gaps]
    mean, covariance = np.zeros(2), np.diag([variance, rate**2 * variance])
    means, covariances, total = [], [], 0.0
    for (A, Q), value, gap in zip(steps, y, gaps, strict=True):
        if gap > 0:
            mean, covariance = A @ mean, A @ covariance @ A.T + Q
        spread = covariance[0, 0] + noise
        error = value - mean[0]
        total -= 0.5 * (np.log(2 * np.pi * spread) + error**2 / spread)
        gain = covariance[:, 0] / spread
        mean = mean + gain * error
        covariance = covariance - np.outer(gain, gain) * spread
        means.append(mean)
        covariances.append(covariance)
    for i in reversed(range(len(y) - 1)):
        A, Q = steps[i + 1]
        ahead = A @ covariances[i] @ A.T + Q
        gain = np.linalg.solve(ahead, A @ covariances[i]).T
        means[i] = means[i] + gain @ (means[i + 1] - A @ means[i])
        covariances[i] = covariances[i] + gain @ (covariances[i + 1] - ahead) @ gain.T
    return Smoothed(float(total), np.array(means)[:, 0], np.array(covariances)[:, 0, 0])


def _step(gap: float, rate: float, variance: float) -> tuple[Array, Array]:
    """Transition and process noise; the impulse response is (s, 1 - rate s) exp(-rate s)."""
    a = rate * gap
    decay = np.exp(-a)
    A = decay * np.array([[1 + a, gap], [-(rate**2) * gap, 1 - a]])
    # integrals of s^k exp(-2 rate s), k = 0, 1, 2, from 0 to the gap
    first = -np.expm1(-2 * a) / (2 * rate)
    second = (first - gap * decay**2) / (2 * rate)
    third = (2 * second - gap**2 * decay**2) / (2 * rate)
    density = 4 * rate**3 * variance
    cross = second - rate * third
    Q = density * np.array([[third, cross], [cross, first - 2 * rate * second + rate**2 * third]])
    return A, Q
