"""Noisy dyadic trees of arXiv 2403.08917 (counts) and of its follow-up (counts and sums).

Our own re-implementations in numpy, vectorised over queries; floating-point Laplace noise.
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["CountSumTree", "TreeL1"]


class TreeL1:
    """Algorithms 1 to 4: one tree of noisy counts a coordinate, geometric intervals of distance.

    Relation add_remove: every node gets Laplace noise of scale levels * d / epsilon.
    """

    def __init__(
        self, x: np.ndarray, epsilon: float, rng: np.random.Generator, alpha: float = 0.1
    ) -> None:
        size, self.dim = x.shape
        self.alpha = alpha
        self.height = math.ceil(math.log2(size))
        self.leaves = 2**self.height
        scale = (self.height + 1) * self.dim / epsilon
        self.trees = [_noisy(_counts(column, self.leaves), scale, rng) for column in x.T]

    def query(self, y: np.ndarray) -> np.ndarray:
        total = np.zeros(len(y))
        last = self.leaves - 1
        steps = math.ceil(math.log(self.leaves) / math.log1p(self.alpha)) + 1
        edges = (1 + self.alpha) ** -np.arange(steps + 1.0)
        edges[-1] = 0
        for tree, at in zip(self.trees, y.T, strict=True):
            for i in range(steps):
                far, near = edges[i], edges[i + 1]
                right = np.ceil((at + near) * last - 1e-9), np.ceil((at + far) * last - 1e-9)
                left = (
                    np.floor((at - far) * last + 1e-9) + 1,
                    np.floor((at - near) * last + 1e-9) + 1,
                )
                for low, high in (right, left):
                    a = np.clip(low, 0, self.leaves).astype(np.int64)
                    b = np.clip(high, 0, self.leaves).astype(np.int64)
                    if (a < b).any():
                        total += far * _interval(tree, a, np.maximum(a, b))
        return total


class CountSumTree:
    """One tree of counts and one of sums a coordinate, half of the budget each; no alpha."""

    def __init__(self, x: np.ndarray, epsilon: float, rng: np.random.Generator) -> None:
        size, self.dim = x.shape
        height = math.ceil(math.log2(size))
        self.leaves = 2**height
        scale = 2 * (height + 1) * self.dim / epsilon
        place = np.arange(self.leaves) / (self.leaves - 1)
        self.counts, self.sums = [], []
        for column in x.T:
            counts = _counts(column, self.leaves)
            self.counts.append(_noisy(counts, scale, rng))
            self.sums.append(_noisy(counts * place, scale, rng))

    def query(self, y: np.ndarray) -> np.ndarray:
        total = np.zeros(len(y))
        for counts, sums, at in zip(self.counts, self.sums, y.T, strict=True):
            k = np.clip(np.floor(at * (self.leaves - 1)) + 1, 0, self.leaves).astype(np.int64)
            zero, end = np.zeros_like(k), np.full_like(k, self.leaves)
            total += at * _interval(counts, zero, k) - _interval(sums, zero, k)
            total += _interval(sums, k, end) - at * _interval(counts, k, end)
        return total


def _counts(column: np.ndarray, leaves: int) -> np.ndarray:
    index = np.clip(np.rint(column * (leaves - 1)), 0, leaves - 1).astype(np.int64)
    return np.bincount(index, minlength=leaves).astype(float)


def _noisy(leaves: np.ndarray, scale: float, rng: np.random.Generator) -> list[np.ndarray]:
    levels = [leaves]
    while len(levels[-1]) > 1:
        levels.append(levels[-1].reshape(-1, 2).sum(1))
    return [level + rng.laplace(0, scale, level.shape) for level in levels]


def _interval(levels: list[np.ndarray], low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Noisy sums over leaves [low, high) by canonical nodes."""
    out = np.zeros(len(low))
    for level in levels:
        take = (low < high) & (low % 2 == 1)
        out += np.where(take, level[np.minimum(low, len(level) - 1)], 0)
        low = low + take
        take = (low < high) & (high % 2 == 1)
        high = high - take
        out += np.where(take, level[np.minimum(high, len(level) - 1)], 0)
        low, high = low >> 1, high >> 1
    return out
