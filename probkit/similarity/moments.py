"""Sums of squared Euclidean distances, from a noisy sum of records and of their squared lengths.

    sum_i norm(x_i - y)^2 = n norm(y)^2 - 2 y . sum_i x_i + sum_i norm(x_i)^2.

Records are clipped to the ball of radius r and truncated towards zero to 24 bits of r, which never
lengthens them; squared lengths are computed from the truncated integers, rounded down.

Privacy [D]: sum x_i moves by at most r (add_remove) or 2 r (replace) in L2 and sqrt(d) times that
in L1; the sum of squared lengths, a number in [0, r^2] for each record, by r^2 under both.
Error: exact but for noise and 2^-24 r a coordinate. Cost: O(n d); O(d) a query; state d + 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probkit.privacy.budget import Relation
from probkit.privacy.mechanism import Blocks
from probkit.similarity.design import Answer, Decoder, Design

__all__ = ["Moments", "clip_to_ball"]

_BITS = 24
_UNIT = 2**_BITS


def clip_to_ball(records: Tensor, center: Tensor, radius: float) -> Tensor:
    """Records relative to the centre in units of the radius, of length at most 1, float64."""
    scaled = (records.to(torch.float64) - center.to(records.device)) / radius
    length = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    # a margin of 1e-12 for the rounding of length and quotient keeps every row inside the ball
    return scaled * (1 - 1e-12) / length.clamp_min(1)


class Moments(Design):
    """Design of squared distances on a ball.

    Args:
        center: (d,) of the ball.
        radius: of the ball.
    """

    kind = "moments"

    def __init__(self, center: Sequence[float], radius: float) -> None:
        self.center = torch.as_tensor(center, dtype=torch.float64)
        self.radius = radius
        self.dim = len(self.center)
        self.state_size = self.dim + 1
        self.largest = _UNIT

    def spec(self) -> dict[str, Any]:
        return {"kind": self.kind, "center": self.center.tolist(), "radius": self.radius}

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Moments:
        return cls(**spec)

    def contributions(self, records: Tensor, labels: Tensor | None) -> Tensor:
        whole = clip_to_ball(records, self.center, self.radius).mul(_UNIT).trunc().to(torch.int64)
        square = (whole**2).sum(-1).clamp_max(_UNIT**2) >> _BITS
        return torch.cat([whole.sum(0), square.sum().reshape(1)])

    def blocks(self, relation: Relation, rows: int) -> Blocks:
        reach = rows * _UNIT * (2 if relation == "replace" else 1)
        scale = self.radius**2 / _UNIT
        # a query of length r: weights 4 y_j^2 of the sum, on average 4 r^2 / d
        size, weight = [self.dim, 1], [4 * scale**2 / self.dim, scale**2]
        l2 = [float(reach), float(rows * _UNIT)]
        l1 = [reach * math.sqrt(self.dim) * (1 + 1e-12), float(rows * _UNIT)]
        if relation == "add_remove":
            size, l1, l2 = [1, *size], [float(rows), *l1], [float(rows), *l2]
            weight = [self.radius**4, *weight]
        return Blocks(np.array(size), np.array(l1), np.array(l2), np.array(weight))

    def decoder(self, estimate: Tensor, variance: Tensor, count: int | None) -> Decoder:
        return _MomentDecoder(self, estimate, variance, count)

    def predicted_sd(self, variance: Tensor, count: int | None) -> float:
        """At a query on the sphere."""
        unit = torch.full((1, self.dim), 1 / math.sqrt(self.dim), dtype=torch.float64)
        return float(_moment_sd(self, unit, variance, count))

    def scale_of_answers(self) -> float:
        return 4 * self.radius**2


class _MomentDecoder(Decoder):
    def __init__(
        self, design: Moments, estimate: Tensor, variance: Tensor, count: int | None
    ) -> None:
        self._design, self._variance, self._count = design, variance, count
        self.num_records = float(estimate[0] if count is None else count)
        self.count_variance = float(variance[0]) if count is None else 0.0
        rest = estimate[1 if count is None else 0 :] / _UNIT
        self._sum, self._square = rest[:-1], float(rest[-1])

    def query(self, points: Tensor, **options: Any) -> Answer:
        design = self._design
        y = (points.to(torch.float64) - design.center.to(points.device)) / design.radius
        square = (y**2).sum(-1)
        cross = y @ self._sum.to(y)
        value = (self.num_records * square - 2 * cross + self._square) * design.radius**2
        sd = _moment_sd(design, y, self._variance, self._count)
        return Answer(value, sd, sd, square > 1)


def _moment_sd(design: Moments, y: Tensor, variance: Tensor, count: int | None) -> Tensor:
    rest = variance[1 if count is None else 0 :].to(y) / _UNIT**2
    square = (y**2).sum(-1)
    total = 4 * (y**2) @ rest[:-1] + rest[-1]
    if count is None:
        total = total + square**2 * float(variance[0])
    return design.radius**2 * total.sqrt()
