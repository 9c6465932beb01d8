"""LSQ (Wagner, Naamad, Mishra, ICML 2023): private kernel means by features and by Gauss transform.

Our own re-implementations after the paper, for the kernel exp(-norm^2); floating-point noise of the
scales that the published code uses for features (relation add_remove, n public).
"""

from __future__ import annotations

import itertools
import math

import numpy as np

__all__ = ["LSQGaussTransform", "LSQRandomFeatures"]


class LSQRandomFeatures:
    """Means of sqrt(2) cos(w x + b), Laplace noise of scale sqrt(2) reps / (epsilon n)."""

    def __init__(self, x: np.ndarray, reps: int, epsilon: float, rng: np.random.Generator) -> None:
        size, dim = x.shape
        self.waves = math.sqrt(2) * rng.standard_normal((dim, reps))
        self.phases = rng.uniform(0, 2 * math.pi, reps)
        self.reps = reps
        features = math.sqrt(2) * np.cos(x @ self.waves + self.phases)
        self._exact = features.mean(0)
        self._scale = math.sqrt(2) * reps / (epsilon * size)
        self.redraw(rng)

    def redraw(self, rng: np.random.Generator) -> None:
        """New noise on the same features, to average over in a measurement."""
        self.mean = self._exact + rng.laplace(0, self._scale, self.reps)

    def query(self, y: np.ndarray) -> np.ndarray:
        return math.sqrt(2) * np.cos(y @ self.waves + self.phases) @ self.mean / self.reps


class LSQGaussTransform:
    """Hermite expansions of ``order`` terms a coordinate in unit cells of [0, side]^d.

    Noise: Laplace on every coefficient, with scales that minimise the error given that coefficient
    k moves by at most 2^-k / k! and is multiplied by about sqrt(2^k k!): kinder than one scale for
    all, which drowns high orders.
    """

    def __init__(
        self, x: np.ndarray, side: int, order: int, epsilon: float, rng: np.random.Generator
    ) -> None:
        size, dim = x.shape
        self.side, self.order, self.size = side, order, size
        cell = np.clip(np.floor(x).astype(int), 0, side - 1)
        offset = x - cell - 0.5
        factorial = [math.factorial(k) for k in range(order)]
        powers = np.stack([offset**k / factorial[k] for k in range(order)], -1)  # (n, d, order)
        flat = np.ravel_multi_index(tuple(cell.T), (side,) * dim)
        shape = (side**dim, *(order,) * dim)
        table = np.zeros(shape)
        for index in itertools.product(range(order), repeat=dim):
            weight = np.prod([powers[:, j, k] for j, k in enumerate(index)], axis=0)
            table[(slice(None), *index)] = np.bincount(flat, weight, minlength=side**dim)
        reach = np.array([0.5**k / factorial[k] for k in range(order)])
        cost = np.array([2.0**k * factorial[k] for k in range(order)])
        scale = np.cbrt(reach / cost)
        for _ in range(dim - 1):
            scale = np.multiply.outer(scale, np.cbrt(reach / cost))
        scale *= np.cbrt(reach**2 * cost).sum() ** dim / epsilon
        self.table = table + rng.laplace(0, 1, shape) * scale

    def query(self, y: np.ndarray) -> np.ndarray:
        dim = y.shape[1]
        reach = 2
        out = np.zeros(len(y))
        for q, point in enumerate(y):
            home = np.clip(np.floor(point).astype(int), 0, self.side - 1)
            ranges = [range(max(0, h - reach), min(self.side, h + reach + 1)) for h in home]
            for cell in itertools.product(*ranges):
                coefficients = self.table[np.ravel_multi_index(cell, (self.side,) * dim)]
                for j in range(dim):
                    hermite = _hermite(point[j] - cell[j] - 0.5, self.order)
                    coefficients = np.tensordot(hermite, coefficients, axes=(0, 0))
                out[q] += coefficients
        return out / self.size


def _hermite(t: float, order: int) -> np.ndarray:
    """h_k(t) = (-1)^k d^k/dt^k exp(-t^2), k < order."""
    values = [math.exp(-t * t), 2 * t * math.exp(-t * t)]
    for k in range(1, order - 1):
        values.append(2 * t * values[k] - 2 * k * values[k - 1])
    return np.array(values[:order])
