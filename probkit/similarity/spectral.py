"""Sums of abs(x_i - y)^p over coordinates, by a noisy Fourier spectrum of the data.

On [0, R] with G cells, f(u) = abs(u)^p for u in [-R, R], continued with period 2R, is an exact sum
over the grid's 2G frequencies, f(u) = c_0 + sum_k w_k cos(pi k u / R), so that with the spectrum
C_k = sum_i cos(pi k x_i / R), S_k = sum_i sin(pi k x_i / R) of one coordinate

    sum_i f(x_i - y) = c_0 n + sum_k w_k (C_k cos(pi k y / R) + S_k sin(pi k y / R)).

(p = 1: only odd k, w_k ~ 4R/(pi k)^2, which is what makes the release cheap.) Records are split
linearly between the two nearest nodes: in 16-bit integers whose sum is exact. The spectrum is an
integer too: cosines and sines are truncated to 20 bits and the sum over nodes is a product of
integers below 2^53. Noise goes to (C_k, S_k) with scales that suit w_k (``privacy.mechanism``).

Privacy [D]: one record is a convex combination of two nodes, each with integer pairs (q_c, q_s) of
norms at most L1 and L2, read off the integer table itself (about sqrt(2) 2^20 and 2^20). Hence
every pair moves by at most 2^16 L under add_remove and twice that under replace, in all K
frequencies and d coordinates at once: the blocks.

Error: exact at nodes, interpolated in between (at most R/(2G) for each record in the query's cell);
noise for p = 1 of sd s R/2 d / sqrt(2 rho), about 4.9 R d^1.5 / epsilon under pure replace. No
log n and no factor (1 + alpha): the tree of arXiv 2403.08917 (algorithms 1 to 4) is in ``trees``.
Cost: O(n d) to update, O(d G^2) integer products to release, O(d) a query; state d (G + 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probkit.privacy.budget import Relation
from probkit.privacy.mechanism import Blocks
from probkit.similarity.design import Answer, Decoder, Design

__all__ = ["SpectralDistance"]

_SPLIT_BITS = 16
_WAVE_BITS = 20
_UNIT = float(2 ** (_SPLIT_BITS + _WAVE_BITS))
_PART_BITS = 20
"""counts are multiplied in parts: (G + 1) 2^20 2^20 < 2^53 for G <= 4096"""


class SpectralDistance(Design):
    """Design for l1 (``power=1``) and lp^p distances on a box.

    Args:
        low, high: bounds of every coordinate.
        num_cells: G, even, at most 4096.
        power: p > 0.
    """

    kind = "spectral"

    def __init__(
        self, low: Sequence[float], high: Sequence[float], num_cells: int, power: float
    ) -> None:
        self.low = torch.as_tensor(low, dtype=torch.float64)
        self.high = torch.as_tensor(high, dtype=torch.float64)
        self.width = self.high - self.low
        self.num_cells, self.power = num_cells, power
        dim = self.dim = len(self.low)
        self.state_size = dim * (num_cells + 1)
        self.largest = 2 ** (_SPLIT_BITS + _WAVE_BITS)

    def spec(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "low": self.low.tolist(),
            "high": self.high.tolist(),
            "num_cells": self.num_cells,
            "power": self.power,
        }

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SpectralDistance:
        return cls(**spec)

    def contributions(self, records: Tensor, labels: Tensor | None) -> Tensor:
        """Counts of split records on the nodes, (d, G + 1) flat; rows are clipped to the box."""
        cells = self.num_cells
        top = cells << _SPLIT_BITS
        low, scale = self.low.to(records.device), (top / self.width).to(records.device)
        position = torch.floor((records.to(torch.float64) - low) * scale + 0.5).T.contiguous()
        places = position.clamp(0, top).to(torch.int64).cpu().numpy()
        out = np.zeros((self.dim, cells + 2), dtype=np.int64)
        for row, where in zip(out, places, strict=True):
            node = where >> _SPLIT_BITS
            upper = np.bincount(node, where & (2**_SPLIT_BITS - 1), minlength=cells + 1)
            moved = upper.astype(np.int64)  # sums of integers below 2^53: exact
            row[:-1] = (np.bincount(node, minlength=cells + 1) << _SPLIT_BITS) - moved
            row[1:] += moved
        return torch.from_numpy(out[:, :-1].copy()).reshape(-1)

    def statistic(self, state: Tensor, count: int, relation: Relation) -> Tensor:
        """Integer spectra (d, K, 2) flat, after the count under add_remove."""
        counts = state.reshape(self.dim, -1).cpu().numpy()
        spectrum = np.empty((self.dim, len(self._frequencies), 2), dtype=np.int64)
        for chosen, waves in self._tables():
            spectrum[:, chosen] = _integer_product(counts, waves).reshape(self.dim, -1, 2)
        return super().statistic(torch.from_numpy(spectrum), count, relation)

    def blocks(self, relation: Relation, rows: int) -> Blocks:
        pairs = np.stack([self._wave, np.roll(self._wave, self.num_cells // 2)]).astype(np.float64)
        reach = rows * (2 if relation == "replace" else 1) * 2.0**_SPLIT_BITS
        l1 = reach * float(np.abs(pairs).sum(0).max())
        l2 = reach * float(np.ceil(np.sqrt((pairs**2).sum(0).max())))
        scale = self._scale.numpy()[:, None]
        weight = ((scale * self._weights) ** 2 / 2 / _UNIT**2).reshape(-1)
        full = np.ones(len(weight))
        sizes = np.full(len(weight), 2)
        if relation == "replace":
            return Blocks(sizes, l1 * full, l2 * full, weight)
        centre = float(scale.sum() * self._mean) ** 2
        return Blocks(
            np.concatenate([[1], sizes]),
            np.concatenate([[rows], l1 * full]),
            np.concatenate([[rows], l2 * full]),
            np.concatenate([[centre], weight]),
        )

    def decoder(self, estimate: Tensor, variance: Tensor, count: int | None) -> Decoder:
        return _TableDecoder(self, estimate, variance, count)

    def predicted_sd(self, variance: Tensor, count: int | None) -> float:
        public = count is not None
        pairs = variance[0 if public else 1 :].reshape(self.dim, -1, 2).mean(-1).numpy()
        total = float((pairs * (self._scale.numpy()[:, None] * self._weights) ** 2).sum())
        centre = 0.0 if public else float(variance[0] * (self._scale.sum() * self._mean) ** 2)
        return float(np.sqrt(total / _UNIT**2 + centre))

    def scale_of_answers(self) -> float:
        return float(self._scale.sum())

    @property
    def _scale(self) -> Tensor:
        """The similarity of opposite ends, coordinate by coordinate."""
        return self.width**self.power

    @cached_property
    def _series(self) -> tuple[np.ndarray, np.ndarray]:
        """Frequencies 1..G in use, and the weights w_0, ..., w_G, for a coordinate of width 1."""
        period = 2 * self.num_cells
        steps = np.arange(period)
        u = np.minimum(steps, period - steps) / self.num_cells
        weights = np.fft.rfft(u**self.power).real * (2 / period)
        weights[0] /= 2
        weights[-1] /= 2
        # rounding leaves dust at frequencies whose weight is zero: it must not take any budget
        used = np.abs(weights) > 1e-11 * np.abs(weights).max()
        used[0] = False
        if self.power == 1:
            used[::2] = False
        return np.flatnonzero(used), weights

    @property
    def _frequencies(self) -> np.ndarray:
        return self._series[0]

    @property
    def _weights(self) -> np.ndarray:
        return self._series[1][self._series[0]]

    @property
    def _mean(self) -> float:
        return float(self._series[1][0])

    @cached_property
    def _wave(self) -> np.ndarray:
        """cos(pi r / G) for r = 0..2G-1 in 20 bits, rounded towards zero; sin is it, shifted."""
        angle = np.pi * np.arange(2 * self.num_cells) / self.num_cells
        return np.trunc(np.cos(angle) * 2.0**_WAVE_BITS).astype(np.int64)

    def _tables(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Chunks of the integer matrix (G + 1, 2 K') of cosines and sines, as float64."""
        period = 2 * self.num_cells
        nodes = np.arange(self.num_cells + 1)[:, None]
        wave = self._wave.astype(np.float64)
        width = max(1, 2**20 // len(nodes))
        for start in range(0, len(self._frequencies), width):
            k = self._frequencies[start : start + width]
            phase = (nodes * k) % period
            table = np.empty((*phase.shape, 2))
            table[..., 0] = wave[phase]
            table[..., 1] = wave[(phase - self.num_cells // 2) % period]
            yield slice(start, start + len(k)), table.reshape(len(nodes), -1)


class _TableDecoder(Decoder):
    """Per coordinate, a table of the noisy sums on the nodes; queries interpolate."""

    def __init__(
        self, design: SpectralDistance, estimate: Tensor, variance: Tensor, count: int | None
    ) -> None:
        self._design = design
        public = count is not None
        self.num_records = float(count if count is not None else estimate[0])
        self.count_variance = 0.0 if public else float(variance[0])
        cells = design.num_cells
        pairs = estimate[0 if public else 1 :].reshape(design.dim, -1, 2).numpy() / _UNIT
        spectrum = np.zeros((design.dim, cells + 1), dtype=np.complex128)
        weights = design._weights * cells
        if design._frequencies[-1] == cells:
            weights = np.concatenate([weights[:-1], 2 * weights[-1:]])
        spectrum[:, design._frequencies] = weights * (pairs[..., 0] - 1j * pairs[..., 1])
        spectrum[:, 0] = 2 * cells * design._mean * self.num_records
        table = np.fft.irfft(spectrum, 2 * cells)[:, : cells + 1] * design._scale.numpy()[:, None]
        # a node's value and its step to the next lie side by side: one access for both
        steps = np.diff(table, axis=1, append=table[:, -1:])
        self._table = torch.from_numpy(np.stack([table, steps], -1).reshape(-1, 2))
        self._first = torch.arange(design.dim) * (cells + 1)
        self._sd = design.predicted_sd(variance, count)

    def query(self, points: Tensor, **options: Any) -> Answer:
        design = self._design
        cells = design.num_cells
        device = points.device
        table, low_end, width, first = (
            t.to(device) for t in (self._table, design.low, design.width, self._first)
        )
        wanted = points.to(torch.float64)
        inside = torch.maximum(torch.minimum(wanted, low_end + width), low_end)
        place = (inside - low_end) * (cells / width)
        node = place.to(torch.int64).clamp_(0, cells - 1)
        part = place - node
        index = node + first
        low, slope = table[index].unbind(-1)
        values = torch.addcmul(low, slope, part)
        beyond = wanted - inside
        outside = (beyond != 0).any(-1)
        if bool(outside.any()):
            # the slope of abs(u) beyond the data is +-n; of abs(u)^p, that of the last cell
            known = self.num_records * beyond.abs()
            steep = slope * (cells / width) * beyond
            values = values + (known if design.power == 1 else steep)
        total = values.sum(-1)
        sd = torch.full_like(total, self._sd)
        return Answer(total, sd, sd, outside)


def _integer_product(counts: np.ndarray, table: np.ndarray) -> np.ndarray:
    """counts @ table in exact integers through float64: every partial sum is below 2^53."""
    out = np.zeros((len(counts), table.shape[1]), dtype=np.int64)
    shift = 0
    while (counts >> shift).any():
        part = (counts >> shift) & (2**_PART_BITS - 1)
        out += (part.astype(np.float64) @ table).astype(np.int64) << shift
        shift += _PART_BITS
    return out
