"""Kernel sums in one to three dimensions, from noisy counts on a coarse grid of B-splines.

A record adds the product of cubic B-spline weights to 4^d cells of width h, about 0.7 bandwidths.
A query y approximates k(., y) by splines of the same grid, coefficients g_y by least squares, and
answers <counts, g_y>; in d > 1 the coefficients are products over coordinates, which needs a
kernel that is a product (gaussian, laplacian).

Privacy [D]: the weights of a record are whole numbers, nonnegative, and sum to exactly 2^b in every
coordinate (the largest takes what rounding left). So the L1 norm is 2^(b d), twice that under
replace; the L2 norm is at most sqrt(1/2) 2^b a coordinate (the squares of the four weights sum to
at most 1/2, at a knot), and sqrt(2) times the product under replace (nonnegative vectors are at
right angles at worst). The number of records under add_remove is the sum of the noisy cells.

Error: noise sqrt(2) s norm(g_y) / epsilon in the sum, independent of the domain's size; the spline
error is below 1e-4 for the gaussian kernel at h = 0.7. Cost: O(4^d n); O(C^d) a query.
Monomial or Hermite expansions (fast Gauss transform) do not have weights that sum to one, and the
interpolating cubic has negative ones: their sensitivities are larger.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probkit.errors import ConfigurationError, DataError, message
from probkit.privacy.budget import Relation
from probkit.privacy.mechanism import Blocks
from probkit.similarity.design import Answer, Decoder, Design
from probkit.similarity.spectral_laws import KERNELS

__all__ = ["GridKDE", "cubic_spline"]

_BITS = {1: 24, 2: 16, 3: 12}
_FINE = 8
"""points a cell of the least-squares fit"""
MAX_CELLS = 2**22


def cubic_spline(t: Tensor) -> Tensor:
    """The cubic B-spline on integer knots, supported on [-2, 2]."""
    t = t.abs()
    inner = 2 / 3 - t**2 + t**3 / 2
    outer = (2 - t).clamp_min(0) ** 3 / 6
    return torch.where(t < 1, inner, outer)


class GridKDE(Design):
    """Design of kernel sums on a box in up to three dimensions.

    Args:
        low, high: bounds of every coordinate.
        kernel: a name; "gaussian" or "laplacian" if there is more than one coordinate.
        bandwidth: h of the kernel.
        spacing: cell width over bandwidth.
    """

    kind = "grid"
    normalised = True

    def __init__(
        self,
        low: Sequence[float],
        high: Sequence[float],
        kernel: str,
        bandwidth: float,
        spacing: float,
    ) -> None:
        self.low = torch.as_tensor(low, dtype=torch.float64)
        self.high = torch.as_tensor(high, dtype=torch.float64)
        self.kernel, self.bandwidth, self.spacing = kernel, bandwidth, spacing
        self.dim = len(self.low)
        if self.dim > 3 or kernel not in KERNELS:
            raise ConfigurationError(
                message("No grid for this kernel", where="kernel, dim", got=(kernel, self.dim))
            )
        if self.dim > 1 and kernel not in ("gaussian", "laplacian"):
            raise ConfigurationError(
                message(
                    "A grid in several dimensions needs a product kernel",
                    where="kernel",
                    got=kernel,
                    expected="gaussian or laplacian",
                    remedy='method="features"',
                )
            )
        self.step = spacing * bandwidth
        self.cells = [math.floor(w / self.step) + 4 for w in (self.high - self.low).tolist()]
        self.state_size = math.prod(self.cells)
        if self.state_size > MAX_CELLS:
            raise ConfigurationError(
                message(
                    "The grid is too large",
                    where="bounds, bandwidth",
                    got=f"{self.state_size} cells",
                    expected=f"at most {MAX_CELLS}",
                    remedy='method="features"',
                )
            )
        self.bits = _BITS[self.dim]
        self.largest = self.unit = 2 ** (self.bits * self.dim)

    def spec(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "low": self.low.tolist(),
            "high": self.high.tolist(),
            "kernel": self.kernel,
            "bandwidth": self.bandwidth,
            "spacing": self.spacing,
        }

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> GridKDE:
        return cls(**spec)

    def contributions(self, records: Tensor, labels: Tensor | None) -> Tensor:
        x = records.to(torch.float64).cpu()
        place = (x.clamp(self.low, self.high) - self.low) / self.step + 1
        first = place.floor()
        whole = [self._whole_weights(place[:, j], first[:, j]) for j in range(self.dim)]
        start = first.to(torch.int64).numpy() - 1
        out = np.zeros(self.state_size, dtype=np.int64)
        for corner in itertools.product(range(4), repeat=self.dim):
            weight = np.ones(len(x), dtype=np.int64)
            index = np.zeros(len(x), dtype=np.int64)
            for j, k in enumerate(corner):
                weight = weight * whole[j][k]
                index = index * self.cells[j] + start[:, j] + k
            # sums of at most 2^10 whole numbers below 2^36 are exact in float64
            out += np.bincount(index, weight, minlength=self.state_size).astype(np.int64)
        return torch.from_numpy(out)

    def _whole_weights(self, place: Tensor, first: Tensor) -> list[np.ndarray]:
        """The four weights of every record in one coordinate, whole and of exact sum 2^bits."""
        knots = torch.arange(-1, 3, dtype=torch.float64)
        weights = cubic_spline(place[:, None] - first[:, None] - knots)
        whole = (weights * 2**self.bits).floor().clamp_min(0).to(torch.int64)
        nearest = torch.where(place - first < 0.5, 1, 2)[:, None]
        whole.scatter_add_(1, nearest, 2**self.bits - whole.sum(1, keepdim=True))
        return list(whole.T.numpy())

    def blocks(self, relation: Relation, rows: int) -> Blocks:
        replace = relation == "replace"
        l1 = float(rows * self.unit * (2 if replace else 1))
        # rounding to whole weights moves each of four by 1 and one more by at most 4: below 8
        one = (math.sqrt(0.5) * 2**self.bits + 8) ** self.dim * (1 + 1e-12)
        l2 = rows * one * (math.sqrt(2) if replace else 1.0)
        return Blocks(
            np.array([self.state_size]),
            np.array([l1]),
            np.array([l2]),
            np.array([1 / self.unit**2]),
        )

    def statistic(self, state: Tensor, count: int, relation: Relation) -> Tensor:
        return state  # the count is the sum of the cells

    def decoder(self, estimate: Tensor, variance: Tensor, count: int | None) -> Decoder:
        return _GridDecoder(self, estimate, variance, count)

    def predicted_sd(self, variance: Tensor, count: int | None) -> float:
        """At the middle of the domain."""
        factors = self.coefficients(((self.low + self.high) / 2)[None])
        norm = math.prod(float((g**2).sum()) for g in factors)
        return math.sqrt(float(variance[0]) * norm) / self.unit

    def scale_of_answers(self) -> float:
        return 1.0

    def coefficients(self, points: Tensor) -> list[Tensor]:
        """Least-squares spline coefficients of k(., y), per coordinate (C_j, Q)."""
        return [self._fit(j) @ self._kernel(j, points[:, j]) for j in range(self.dim)]

    def _grid(self, j: int) -> Tensor:
        # to the end of the last whole cell: a spline that the domain hardly touches would get
        # huge coefficients, and the noise with them
        length = (self.cells[j] - 3) * self.step
        return torch.linspace(0, length, _FINE * self.cells[j], dtype=torch.float64)

    def _fit(self, j: int) -> Tensor:
        cells = torch.arange(self.cells[j], dtype=torch.float64)
        basis = cubic_spline(self._grid(j)[:, None] / self.step + 1 - cells)
        return torch.linalg.pinv(basis, rtol=1e-10)

    def _kernel(self, j: int, points: Tensor) -> Tensor:
        s = (self._grid(j)[:, None] + self.low[j] - points).abs() / self.bandwidth
        if self.kernel in ("gaussian", "cauchy"):
            s = s**2
        return 1 / (1 + s) if KERNELS[self.kernel][1] else torch.exp(-s)


class _GridDecoder(Decoder):
    def __init__(
        self, design: GridKDE, estimate: Tensor, variance: Tensor, count: int | None
    ) -> None:
        self._design = design
        self._counts = (estimate / design.unit).reshape(design.cells)
        self._sd = math.sqrt(float(variance[0])) / design.unit
        self.num_records = float(self._counts.sum() if count is None else count)
        self.count_variance = self._sd**2 * self._counts.numel() if count is None else 0.0
        self._fits = [design._fit(j) for j in range(design.dim)]

    def query(self, points: Tensor, **options: Any) -> Answer:
        design = self._design
        y = points.cpu().to(torch.float64)
        outside = ((y < design.low) | (y > design.high)).any(-1)
        if bool(outside.any()):
            raise DataError(
                message(
                    "A grid answers inside its domain only",
                    where="points",
                    got=f"{int(outside.sum())} points outside",
                    remedy='method="features" answers everywhere',
                )
            )
        total: Tensor = self._counts
        norm = torch.ones(len(y), dtype=torch.float64)
        for j in range(design.dim):
            g = self._fits[j] @ design._kernel(j, y[:, j])
            total = g.T @ total.reshape(len(g), -1) if j == 0 else (g.T[:, :, None] * total).sum(1)
            total = total.reshape(len(y), *design.cells[j + 1 :])
            if 0 < j + 1 < design.dim:
                total = total.reshape(len(y), design.cells[j + 1], -1)
            norm = norm * (g**2).sum(0)
        value = total.reshape(len(y)).to(points.device)
        sd = (self._sd * norm.sqrt()).to(points.device)
        return Answer(value, sd, sd, outside.to(points.device))
