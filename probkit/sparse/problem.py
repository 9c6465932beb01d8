"""The data of independent recovery problems in one shape, and the slices that are still in play.

Everything has a leading dimension B of problems that are solved together. Scales g_k are kept at
full length (B, N_k) with zeros for slices that were dropped; for a pass the remaining columns are
gathered, padded to the longest list of the batch by slices of scale zero, which no formula notices.
Data and factors are brought to unit mean square before a fit, so that starting values, thresholds
and stopping rules do not depend on units.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from probkit.linalg.kronecker_gaussian import Conditioned, condition

__all__ = ["Active", "Problem", "scatter", "scatter_grid"]


@dataclass(frozen=True)
class Active:
    """The slices with a positive scale of some problems."""

    factors: list[Tensor]
    """(b, M_k, n_k)"""
    scales: list[Tensor]
    """(b, n_k), zero where padded"""
    index: list[Tensor]
    """(b, n_k), the columns in the dictionary"""
    noise: Tensor
    """(b)"""
    y: Tensor
    """(b, L, M_1, ..., M_I)"""

    def condition(self) -> Conditioned:
        return condition(self.factors, self.scales, self.noise, self.y)


@dataclass(frozen=True)
class Problem:
    """B problems ``y = (A_1 x ... x A_I) x + e`` with L columns each.

    Args:
        factors: (1, M_k, N_k) or (B, M_k, N_k).
        y: (B, L, M_1, ..., M_I).
        noise: (B), or None where it is to be learned.
    """

    factors: list[Tensor]
    y: Tensor
    noise: Tensor | None

    @property
    def num_problems(self) -> int:
        return self.y.shape[0]

    @property
    def num_columns(self) -> int:
        return self.y.shape[1]

    @property
    def num_data(self) -> int:
        """Numbers of one problem, all columns."""
        return math.prod(self.y.shape[1:])

    @property
    def sizes(self) -> list[int]:
        return [a.shape[-1] for a in self.factors]

    @property
    def real_dtype(self) -> torch.dtype:
        return self.y.real.dtype

    @property
    def power(self) -> Tensor:
        """Mean of abs(y)^2, (B)."""
        return self.y.abs().square().flatten(1).mean(1)

    @property
    def penalty(self) -> float:
        """What a slice has to add to the log evidence: half the log of the number of data."""
        return 0.5 * math.log(self.num_data)

    def normalized(self) -> tuple[Problem, Tensor, list[Tensor]]:
        """The same problems in units of their own, with y's scale (B) and the factors' (1 or B)."""
        scale = self.power.sqrt()
        scale = torch.where(scale > 0, scale, 1.0)
        norms = [a.abs().square().flatten(1).mean(1).sqrt() for a in self.factors]
        norms = [torch.where(n > 0, n, 1.0) for n in norms]
        factors = [a / n.reshape(-1, 1, 1) for a, n in zip(self.factors, norms, strict=True)]
        y = self.y / scale.reshape(-1, *[1] * (self.y.dim() - 1))
        noise = None if self.noise is None else self.noise / scale.square()
        return Problem(factors, y, noise), scale, norms

    def equal_scales(self) -> list[Tensor]:
        """Scales that give the signal the power of the data; zero for columns of zeros."""
        num = len(self.factors)
        columns = [a.abs().square().sum(-2) for a in self.factors]
        log = self.power.clamp(min=torch.finfo(self.real_dtype).tiny).log()
        log = log + math.log(math.prod(self.y.shape[2:]))
        for c in columns:
            log = log - c.sum(-1).clamp(min=torch.finfo(self.real_dtype).tiny).log()
        level = (log / num).exp().unsqueeze(-1)
        return [torch.where(c > 0, 1.0, 0.0).to(level) * level for c in columns]

    def active(self, scales: Sequence[Tensor], noise: Tensor, rows: Tensor | None = None) -> Active:
        """Gather the slices with positive scales of all problems, or of those in ``rows``."""
        if rows is not None and len(rows) < self.num_problems:
            scales, noise, y = [g[rows] for g in scales], noise[rows], self.y[rows]
        else:
            rows, y = None, self.y
        factors, kept, index = [], [], []
        for a, g in zip(self.factors, scales, strict=True):
            found = (g > 0).sum(-1)
            longest = max(int(found.max()), 1)
            if longest == g.shape[-1]:
                columns = torch.arange(longest, device=g.device).expand(g.shape[0], -1)
            else:
                order = torch.sort((g <= 0).to(torch.uint8), dim=-1, stable=True).indices
                columns = order[:, :longest]
            if a.shape[0] == 1 and g.shape[0] == 1:
                factors.append(a[:, :, columns[0]])
            else:
                mine = a if rows is None or a.shape[0] == 1 else a[rows]
                mine = mine.expand(g.shape[0], -1, -1)
                where = columns.unsqueeze(-2).expand(-1, a.shape[-2], -1)
                factors.append(mine.gather(-1, where))
            kept.append(g.gather(-1, columns))
            index.append(columns)
        return Active(factors, kept, index, noise, y)

    def null_evidence(self, noise: Tensor) -> Tensor:
        """Log evidence of "no signal at all", (B)."""
        half = 1.0 if self.y.is_complex() else 0.5
        quadratic = self.y.abs().square().flatten(1).sum(1) / noise
        constant = math.log(math.pi / half)
        return -half * (self.num_data * (noise.log() + constant) + quadratic)


def scatter(
    values: Sequence[Tensor], index: Sequence[Tensor], sizes: Sequence[int]
) -> list[Tensor]:
    """Vectors (b, n_k) put back to full length (b, N_k), zeros elsewhere."""
    return [
        v.new_zeros(v.shape[0], size).scatter(-1, i, v)
        for v, i, size in zip(values, index, sizes, strict=True)
    ]


def scatter_grid(
    values: Tensor, scales: Sequence[Tensor], index: Sequence[Tensor], sizes: Sequence[int]
) -> Tensor:
    """A grid (b, L, n_1, ..., n_I) put back to (b, L, N_1, ..., N_I), zeros elsewhere."""
    full = values.new_zeros(*values.shape[:2], *sizes)
    for b in range(values.shape[0]):
        kept = [g[b] > 0 for g in scales]
        part = values[b]
        for k, mask in enumerate(kept):
            part = part.index_select(k + 1, mask.nonzero().squeeze(-1))
        where = [i[b][m] for i, m in zip(index, kept, strict=True)]
        grid = torch.meshgrid(torch.arange(len(part)).to(where[0]), *where, indexing="ij")
        full[b][grid] = part
    return full
