"""Sums of Euclidean distances, from noisy counts of half-spaces.

For directions theta_j uniform on the sphere, norm(v) = c_d E abs(theta . v) with
c_d = sqrt(pi) Gamma((d+1)/2) / Gamma(d/2). Along one direction the sum of abs(p_i - v) is piecewise
linear with slopes n - 2 N(v), N(v) the number of records beyond v, so

    sum_i norm(x_i - y) = (c_d / K) sum_j [ f_j(0) + n abs(v_j) - 2 int_0^{v_j} S_j(t) dt ],

v_j = theta_j . y, S_j(t) = N_j(t) for t > 0 and N_j(t) - n for t < 0. S_j is kept on G cells of
[-r, r], records split linearly between nodes (16 bits); sum_j f_j(0) is one more number.

Privacy [D]: integers throughout (directions in 21 bits, records in 20 bits of r, truncated towards
zero). S_j holds abs(p) / h units between 0 and a record's projection p, h the cell: replacing a
record moves sum_j sum_t by at most sum_j abs(theta_j . (x - x')) / h <= sqrt(K) norm(Theta) 2r / h
by Cauchy-Schwarz, with the spectral norm of the integer directions; add_remove: half of it. Each
cell moves by at most 1, so the squared L2 norm is no larger. Two roundings down add at most two
units of 2^-16 a direction. The sum of f_j(0) moves by at most sqrt(K) norm(Theta) r, under both.

Error: noise of sd O(r / sqrt(rho)), independent of d and of K, so K is limited by compute alone;
choosing directions costs about n norm / sqrt(K) more, which ``Answer.sd`` includes. Pure DP is
possible but far noisier (take few cells). Cost: O(n d K); O(d K) a query; state K G.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probkit.privacy.budget import Relation
from probkit.privacy.mechanism import Blocks
from probkit.random import as_generator
from probkit.similarity.design import Answer, Decoder, Design
from probkit.similarity.moments import clip_to_ball

__all__ = ["Halfspaces"]

_RECORD_BITS = 20
_DIRECTION_BITS = 21
_SPLIT_BITS = 16
_DROP = 16
_UNIT = 2**_SPLIT_BITS


class Halfspaces(Design):
    """Design of Euclidean distances on a ball.

    Args:
        center, radius: of the ball.
        num_directions: K.
        num_cells: G, even, at most 1024.
        seed: public; of the directions.
        directions: (K, d) whole numbers below 2^21; None to draw them.
    """

    kind = "halfspaces"

    def __init__(
        self,
        center: Sequence[float],
        radius: float,
        num_directions: int,
        num_cells: int,
        seed: int,
        directions: Tensor | None = None,
    ) -> None:
        self.center = torch.as_tensor(center, dtype=torch.float64)
        self.radius, self.seed = radius, seed
        self.num_directions, self.num_cells = num_directions, num_cells
        self.dim = len(self.center)
        if directions is None:
            generator = as_generator(seed)
            raw = torch.randn(num_directions, self.dim, generator=generator, dtype=torch.float64)
            unit = raw / torch.linalg.vector_norm(raw, dim=-1, keepdim=True)
            directions = unit.mul(2**_DIRECTION_BITS).trunc().to(torch.int64)
        self.directions = directions
        self.state_size = num_directions * num_cells + 1
        self.largest = num_directions * num_cells * _UNIT
        half = self.dim / 2
        log_ratio = math.lgamma(half + 0.5) - math.lgamma(half)
        self.constant = math.sqrt(math.pi) * math.exp(log_ratio)

    def spec(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "center": self.center.tolist(),
            "radius": self.radius,
            "num_directions": self.num_directions,
            "num_cells": self.num_cells,
            "seed": self.seed,
        }

    def tensors(self) -> dict[str, Tensor]:
        return {"directions": self.directions}

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Halfspaces:
        directions = tensors["directions"]
        if directions.shape != (spec["num_directions"], len(spec["center"])):
            raise ValueError("directions of another shape")
        return cls(**spec, directions=directions)

    def contributions(self, records: Tensor, labels: Tensor | None) -> Tensor:
        cells, count = self.num_cells, self.num_directions
        whole = clip_to_ball(records, self.center, self.radius).mul(2**_RECORD_BITS).trunc()
        turned = self.directions.to(whole.device, torch.float64) @ whole.mT
        top = cells << _SPLIT_BITS
        half = 2 ** (_RECORD_BITS + _DIRECTION_BITS - _DROP)
        position = ((turned.to(torch.int64) >> _DROP) + half) * top >> (half.bit_length())
        place = position.clamp(0, top).cpu().numpy()
        nodes = np.zeros((count, cells + 2), dtype=np.int64)
        for row, where in zip(nodes, place, strict=True):
            node = where >> _SPLIT_BITS
            moved = np.bincount(node, where & (_UNIT - 1), minlength=cells + 1).astype(np.int64)
            row[:-1] = (np.bincount(node, minlength=cells + 1) << _SPLIT_BITS) - moved
            row[1:] += moved
        beyond = np.cumsum(nodes[:, cells:0:-1], axis=1)[:, ::-1]  # records above every cell
        beyond[:, : cells // 2] -= len(records) << _SPLIT_BITS
        at_zero = np.abs(place - (top >> 1)).sum()
        return torch.from_numpy(np.concatenate([[at_zero], beyond.reshape(-1)]))

    def blocks(self, relation: Relation, rows: int) -> Blocks:
        both = 2 if relation == "replace" else 1
        per_radius = self.num_cells * _UNIT / 2
        slack = 2 * self.num_directions
        reach = self._reach * per_radius
        moved = rows * (both * reach + both * slack)
        l2 = rows * math.sqrt((both * reach + both * slack) * _UNIT)
        length = rows * (reach + 2 * slack)
        scale = self.constant / self.num_directions * self.radius / per_radius
        # noise of the integral to v is (2 h)^2 times the number of cells; sum abs(v) = K r / c_d
        cells = self.num_directions / self.constant * self.num_cells / 2
        average = (2 * scale * _UNIT) ** 2 * cells / (self.num_directions * self.num_cells)
        size = [1, self.num_directions * self.num_cells]
        l1s, l2s = [float(length), moved], [float(length), l2]
        weight = [scale**2, average / _UNIT**2]
        if relation == "add_remove":
            size, l1s, l2s = [1, *size], [float(rows), *l1s], [float(rows), *l2s]
            weight = [self.radius**2, *weight]
        return Blocks(np.array(size), np.array(l1s), np.array(l2s), np.array(weight))

    def decoder(self, estimate: Tensor, variance: Tensor, count: int | None) -> Decoder:
        return _HalfspaceDecoder(self, estimate, variance, count)

    def predicted_sd(self, variance: Tensor, count: int | None) -> float:
        """At a query on the sphere."""
        rest = variance[1 if count is None else 0 :]
        scale = self.constant / self.num_directions * 2 * self.radius / self.num_cells / _UNIT
        cells = self.num_directions / self.constant * self.num_cells / 2
        total = scale**2 * (float(rest[0]) + 4 * cells * float(rest[-1]))
        centre = float(variance[0]) * self.radius**2 if count is None else 0.0
        return math.sqrt(total + centre)

    def scale_of_answers(self) -> float:
        return 2 * self.radius

    @cached_property
    def _reach(self) -> float:
        """sqrt(K) norm(Theta) of the integer directions, rounded up."""
        real = self.directions.to(torch.float64) / 2**_DIRECTION_BITS
        norm = float(torch.linalg.matrix_norm(real, ord=2))
        return math.sqrt(self.num_directions) * norm * (1 + 1e-9)


class _HalfspaceDecoder(Decoder):
    """Tables of the integral of S_j from 0 to every node."""

    def __init__(
        self, design: Halfspaces, estimate: Tensor, variance: Tensor, count: int | None
    ) -> None:
        self._design = design
        skip = 1 if count is None else 0
        self.num_records = float(estimate[0] if count is None else count)
        self.count_variance = float(variance[0]) if count is None else 0.0
        cells = design.num_cells
        step = 2 * design.radius / cells
        self._at_zero = float(estimate[skip]) * step / _UNIT
        self._zero_variance = float(variance[skip]) * (step / _UNIT) ** 2
        self._cell_variance = float(variance[-1]) * (step / _UNIT) ** 2
        slopes = estimate[skip + 1 :].reshape(design.num_directions, cells) * (step / _UNIT)
        table = torch.zeros(design.num_directions, cells + 1, dtype=torch.float64)
        table[:, 1:] = slopes.cumsum(-1)
        self._table = table - table[:, cells // 2 : cells // 2 + 1]

    def query(self, points: Tensor, **options: Any) -> Answer:
        design = self._design
        device = points.device
        cells, radius, count = design.num_cells, design.radius, design.num_directions
        shifted = points.to(torch.float64) - design.center.to(device)
        theta = design.directions.to(device, torch.float64) / 2**_DIRECTION_BITS
        v = shifted @ theta.mT  # (Q, K)
        place = (v / radius + 1).mul(cells / 2).clamp(0, cells)
        node = place.floor().clamp(max=cells - 1)
        index = node.long() + torch.arange(count, device=device) * (cells + 1)
        table = self._table.reshape(-1).to(device)
        low = table[index]
        inside = low + (table[index + 1] - low) * (place - node)
        terms = self.num_records * v.abs() - 2 * inside
        scale = design.constant / count
        value = scale * (self._at_zero + terms.sum(-1))
        steps = (place - cells / 2).abs().sum(-1)
        variance = self._zero_variance + 4 * steps * self._cell_variance
        length = torch.linalg.vector_norm(shifted, dim=-1)
        noise = (scale**2 * variance + self.count_variance * length**2).sqrt()
        # the directions are shared by all records: spread of the terms that depend on the query
        spread = scale * math.sqrt(count) * terms.std(-1) if count > 1 else noise
        return Answer(value, (noise**2 + spread**2).sqrt(), noise, length > radius)
