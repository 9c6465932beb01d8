"""The paper's data structure: noisy dyadic trees of counts, one a coordinate.

Algorithms 1 to 4 of arXiv 2403.08917: [low, high] of every coordinate has 2^h leaves, and every
node of the balanced tree over them the number of records below it, with noise. The sum of
abs(x - y)^p over records takes intervals of distances between R (1 + alpha)^-(j+1) and
R (1 + alpha)^-j on both sides of y, each counted by at most 2 h nodes and weighted by its middle
(the paper's upper end is biased by alpha / 2).

With ``consistent=True`` children are first made to add up to their parents (Hay et al., VLDB 2010,
section 4.2: weighted averages upwards, differences spread downwards); the leaves then answer alone,
without alpha.

Privacy [D]: a record changes one node a level by 1: L1 norm h + 1 levels under add_remove. Under
replace two nodes a level and not the root, which is the public n: 2 h; squared L2 likewise. The
number of leaves must be given, not be taken from n (a private n would show).
Error: O(R (h d)^1.5 / (epsilon sqrt(alpha))); ``spectral`` is 40 times more accurate and faster.
Cost: O(n d); O(d h / alpha log 2^h) a query; state d 2^h.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probkit.privacy.budget import Relation
from probkit.privacy.mechanism import Blocks
from probkit.similarity.design import Answer, Decoder, Design

__all__ = ["DyadicTrees"]

_UNIT = 2**10
"""counts in units that leave room for non-integer scales"""
_SIMULATIONS = 100


class DyadicTrees(Design):
    """Design of l1 and lp^p distances by noisy dyadic trees.

    Args:
        low, high: bounds of every coordinate.
        height: h; there are 2^h leaves.
        power: p.
        alpha: ratio of the intervals of distances, less 1.
        consistent: average the tree to consistency and answer from the leaves.
    """

    kind = "trees"

    def __init__(
        self,
        low: Sequence[float],
        high: Sequence[float],
        height: int,
        power: float,
        alpha: float,
        consistent: bool,
    ) -> None:
        self.low = torch.as_tensor(low, dtype=torch.float64)
        self.width = torch.as_tensor(high, dtype=torch.float64) - self.low
        self.dim, self.height = len(self.low), height
        self.power, self.alpha, self.consistent = power, alpha, consistent
        self.num_leaves = 2**height
        self.state_size = self.dim * self.num_leaves
        self.largest = _UNIT

    def spec(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "low": self.low.tolist(),
            "high": (self.low + self.width).tolist(),
            "height": self.height,
            "power": self.power,
            "alpha": self.alpha,
            "consistent": self.consistent,
        }

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> DyadicTrees:
        return cls(**spec)

    def contributions(self, records: Tensor, labels: Tensor | None) -> Tensor:
        device = records.device
        scaled = (records.to(torch.float64) - self.low.to(device)) / self.width.to(device)
        leaf = (scaled * self.num_leaves).floor().clamp(0, self.num_leaves - 1)
        places = leaf.T.to(torch.int64).cpu().numpy()
        counts = [np.bincount(row, minlength=self.num_leaves) for row in places]
        return torch.from_numpy(np.concatenate(counts).astype(np.int64) * _UNIT)

    def statistic(self, state: Tensor, count: int, relation: Relation) -> Tensor:
        """Levels from the leaves up, (d, nodes) flat; the root only where n is private."""
        levels = [state.reshape(self.dim, -1)]
        while levels[-1].shape[1] > (2 if relation == "replace" else 1):
            levels.append(levels[-1].reshape(self.dim, -1, 2).sum(-1))
        return torch.cat(levels, 1).reshape(-1)

    def blocks(self, relation: Relation, rows: int) -> Blocks:
        replace = relation == "replace"
        nodes = 2 * self.num_leaves - (2 if replace else 1)
        moved = 2 * self.height if replace else self.height + 1
        full = np.ones(self.dim)
        return Blocks(
            np.full(self.dim, nodes),
            rows * moved * _UNIT * full,
            rows * math.sqrt(moved) * _UNIT * (1 + 1e-12) * full,
            self.width.numpy() ** (2 * self.power) / _UNIT**2,
        )

    def decoder(self, estimate: Tensor, variance: Tensor, count: int | None) -> Decoder:
        return _TreeDecoder(self, estimate, variance, count)

    def predicted_sd(self, variance: Tensor, count: int | None) -> float:
        """Intervals: independent noise of h nodes each. Consistent: simulated, at the middle."""
        each = variance.reshape(self.dim, -1)[:, 0] / _UNIT**2
        total = float((each * self.width ** (2 * self.power)).sum())
        if self.consistent:
            return math.sqrt(total * self._consistent_variance(count is not None))
        ratio = (1 + self.alpha) ** (-2 * self.power)
        return math.sqrt(total * self.height / (1 - ratio))

    def _consistent_variance(self, exact_root: bool) -> float:
        """Variance of the answer at the middle for unit noise in every node, width 1."""
        generator = torch.Generator().manual_seed(0)
        middle = (torch.arange(self.num_leaves, dtype=torch.float64) + 0.5) / self.num_leaves
        weight = (middle - 0.5).abs() ** self.power
        answers = []
        for _ in range(_SIMULATIONS):
            levels = [
                torch.randn(1, 2**h, generator=generator, dtype=torch.float64)
                for h in range(self.height, -1, -1)
            ]
            if exact_root:
                levels[-1].zero_()
            answers.append(_consistent_leaves(levels, exact_root=exact_root)[0] @ weight)
        return float(torch.stack(answers).square().mean())

    def scale_of_answers(self) -> float:
        return float((self.width**self.power).sum())


class _TreeDecoder(Decoder):
    def __init__(
        self, design: DyadicTrees, estimate: Tensor, variance: Tensor, count: int | None
    ) -> None:
        self._design = design
        self._sd = design.predicted_sd(variance, count)
        levels, flat = [], estimate.reshape(design.dim, -1) / _UNIT
        start, size = 0, design.num_leaves
        while start < flat.shape[1]:
            levels.append(flat[:, start : start + size])
            start, size = start + size, size // 2
        if count is not None:
            levels.append(torch.full((design.dim, 1), float(count), dtype=torch.float64))
        self.num_records = float(levels[-1].mean())
        self.count_variance = (
            0.0 if count is not None else float(variance[0]) / _UNIT**2 / design.dim
        )
        if design.consistent:
            leaves = _consistent_leaves(levels, exact_root=count is not None)
            zero = torch.zeros(design.dim, 1, dtype=torch.float64)
            self._prefix = torch.cat([zero, leaves.cumsum(-1)], 1).numpy()
        self._levels = [level.numpy() for level in levels]

    def query(self, points: Tensor, **options: Any) -> Answer:
        design = self._design
        scaled = (points.cpu().to(torch.float64) - design.low) / design.width
        outside = ((scaled < 0) | (scaled > 1)).any(-1).to(points.device)
        unit = scaled.clamp(0, 1).numpy()
        total = np.zeros(len(points))
        for j, width in enumerate(design.width.tolist()):
            answer = self._from_leaves if design.consistent else self._from_intervals
            total += width**design.power * answer(j, unit[:, j])
        value = torch.from_numpy(total).to(points.device)
        sd = torch.full_like(value, self._sd)
        return Answer(value, sd, sd, outside)

    def _from_leaves(self, j: int, y: np.ndarray) -> np.ndarray:
        middle = (np.arange(self._design.num_leaves) + 0.5) / self._design.num_leaves
        counts = np.diff(self._prefix[j])
        return np.array([(counts * np.abs(middle - at) ** self._design.power).sum() for at in y])

    def _from_intervals(self, j: int, y: np.ndarray) -> np.ndarray:
        """Algorithm 3: geometric intervals of distances, the middle of each as its weight."""
        design = self._design
        leaves = design.num_leaves
        steps = math.ceil(math.log(leaves) / math.log1p(design.alpha))
        ends = np.concatenate([(1 + design.alpha) ** -np.arange(steps + 1.0), [0.0]])
        home = np.minimum((y * leaves).astype(np.int64), leaves - 1)
        total = np.zeros(len(y))
        for far, near in pairwise(ends):
            weight = ((far + near) / 2) ** design.power
            outer, inner = round(far * leaves), round(near * leaves)
            if outer == inner:
                continue
            for low, high in (
                (home + 1 + inner, home + 1 + outer),
                (home - outer, home - inner),
            ):
                total += weight * self._count(j, np.clip(low, 0, leaves), np.clip(high, 0, leaves))
        return total

    def _count(self, j: int, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Algorithm 2: noisy number of records on leaves [low, high), by at most 2 h nodes."""
        out = np.zeros(len(low))
        for level in self._levels:
            row = level[j]
            active = low < high
            take = active & (low % 2 == 1)
            out += np.where(take, row[np.minimum(low, len(row) - 1)], 0.0)
            low = low + take
            take = active & (high % 2 == 1) & (low < high)
            high = high - take
            out += np.where(take, row[np.minimum(high, len(row) - 1)], 0.0)
            if len(row) == 1:
                break
            low, high = low // 2, high // 2
        return out


def _consistent_leaves(levels: list[Tensor], *, exact_root: bool) -> Tensor:
    """Least-squares leaves given that all nodes above the leaves are sums of their children."""
    best = [levels[0]]
    share = 1.0
    for level in levels[1:]:
        below = best[-1].reshape(len(level), -1, 2).sum(-1)
        # variances relative to one node's noise: below has 2 share, the node itself 1
        last = exact_root and level.shape[1] == 1
        mixed = level if last else (2 * share * level + below) / (2 * share + 1)
        share = 0.0 if last else 2 * share / (2 * share + 1)
        best.append(mixed)
    final = best[-1]
    for below in best[-2::-1]:
        gap = (final - below.reshape(len(below), -1, 2).sum(-1)) / 2
        final = below + gap.repeat_interleave(2, dim=1)
    return final
