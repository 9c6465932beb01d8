"""Noise for an integer statistic whose coordinates come in blocks: scales, draws, variances.

Block b has ``size[b]`` coordinates, and a change of one record changes it by at most ``l1[b]``
(sum of absolute values) and ``l2[b]`` (Euclidean), in every block at once. ``weight[b]`` is the
variance of the answers per unit variance of a coordinate. Scales minimise the variance of the
answers for the budget, with c_b = size_b weight_b:

    pure:  sum_b l1_b / t_b = epsilon,       t_b = (l1_b / c_b)^(1/3) S / epsilon,
           S = sum_b l1_b^(2/3) c_b^(1/3);
    zCDP:  sum_b l2_b^2 / (2 s_b^2) = rho,   s_b^2 = (l2_b / sqrt(c_b)) S / (2 rho),
           S = sum_b l2_b sqrt(c_b).

Privacy [D]: for integers, discrete Laplace (Gaussian) noise of these scales has exactly the loss
on the left (see ``samplers``), whatever the scales: they depend on public numbers only, so an
inexact optimum costs accuracy, not privacy. Two roundings are covered by the bounds: a block whose
scale would exceed the exact samplers' range is divided by 2^shift, rounding down, which changes a
difference by less than 1 a coordinate (l1 + size, l2 + sqrt(size)); and scales are rounded up to
integers. The loss is then added up again from the integer scales and must not exceed the budget.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.privacy.budget import Budget
from probkit.privacy.entropy import Entropy
from probkit.privacy.errors import PrivacyError
from probkit.privacy.samplers import (
    MAX_GAUSSIAN,
    MAX_LAPLACE,
    discrete_gaussian,
    discrete_laplace,
    laplace_variance,
)

__all__ = ["Blocks", "Noise", "plan_noise"]

_FINE = {"laplace": MAX_LAPLACE // 4, "gaussian": MAX_GAUSSIAN // 4}
"""scales above this are halved until they are below its double"""
_MAX_SHIFT = 62
"""all bits of an int64"""
_SAFETY = 1e-9
"""relative allowance for the floating-point arithmetic that adds up at most 2^20 losses"""

Floats = NDArray[np.float64]
Draw = Callable[[str, NDArray[np.int64]], NDArray[np.int64]]


@dataclass(frozen=True)
class Blocks:
    """How far one record can move a statistic, block by block; see the module's text.

    Attributes:
        size, l1, l2, weight: one number a block.
    """

    size: NDArray[np.int64]
    l1: Floats
    l2: Floats
    weight: Floats

    @property
    def num_coordinates(self) -> int:
        """Length of the statistic."""
        return int(self.size.sum())


@dataclass(frozen=True)
class Noise:
    """A mechanism: how to turn the exact statistic into what may be published.

    Attributes:
        kind: "laplace", "gaussian" (integers) or "knorm" (continuous, not hardened).
        scale: (B,) integer scales after the shift, or real scales of "knorm".
        shift: (B,) bits dropped from the integers of each block.
        size: (B,) coordinates of each block.
    """

    kind: str
    scale: Floats
    shift: NDArray[np.int64]
    size: NDArray[np.int64]

    def apply(self, statistic: Tensor, entropy: Entropy, draw: Draw | None = None) -> Tensor:
        """Publishable integers, int64, flat; ``draw`` replaces our own samplers.

        Raises:
            PrivacyError: continuous noise, which has a function of its own.
        """
        if self.kind == "knorm":
            raise PrivacyError(message("Continuous noise has its own function", where="kind"))
        shift = torch.from_numpy(self._spread(self.shift))
        values = statistic.reshape(-1).cpu() >> shift
        scales = self._spread(self.scale).astype(np.int64)
        if draw is not None:
            return values + torch.from_numpy(draw(self.kind, scales))
        sampler = discrete_laplace if self.kind == "laplace" else discrete_gaussian
        return values + torch.from_numpy(sampler(scales, len(scales), entropy))

    def decode(self, published: Tensor) -> Tensor:
        """The statistic's estimate, float64; the middle of the interval that a shift rounds."""
        if self.kind == "knorm":
            return published.to(torch.float64)
        shift = self._spread(self.shift)
        unit = torch.from_numpy(np.exp2(shift))
        middle = torch.from_numpy(np.where(shift > 0, 0.5, 0.0))
        return (published.cpu().to(torch.float64) + middle) * unit

    def variance(self) -> Tensor:
        """Variance of the noise of every coordinate in the statistic's own unit, float64."""
        if self.kind == "laplace":
            variance = laplace_variance(self.scale)
        elif self.kind == "gaussian":
            variance = self.scale**2
        else:
            variance = (self.size + 1) * self.scale**2
        return torch.from_numpy(self._spread(variance * np.exp2(2.0 * self.shift)))

    def loss(self, blocks: Blocks) -> float:
        """Upper bound on the privacy loss: epsilon, or rho for "gaussian"."""
        if self.kind == "knorm":
            total = float((blocks.l2 / self.scale).sum())
            return total * (1 + _SAFETY)
        unit = np.exp2(self.shift.astype(np.float64))
        rounded = self.shift > 0
        if self.kind == "laplace":
            l1 = blocks.l1 / unit + rounded * blocks.size
            total = float((l1 / self.scale).sum())
        else:
            l2 = blocks.l2 / unit + rounded * np.sqrt(blocks.size)
            total = float((l2**2 / (2 * self.scale**2)).sum())
        return total * (1 + _SAFETY)

    def _spread(self, each: NDArray) -> NDArray:
        return np.repeat(each, self.size)


def plan_noise(blocks: Blocks, budget: Budget, *, continuous: bool = False) -> Noise:
    """The mechanism of least error whose loss is at most the budget.

    Args:
        blocks: the statistic's bounds.
        budget: pure (discrete Laplace, or K-norm if ``continuous``) or zCDP (discrete Gaussian).
        continuous: K-norm noise of the Euclidean ball in every block; in floating point, so
            without protection against attacks on low-order bits.

    Raises:
        ConfigurationError: continuous noise under zCDP, or a budget so small that the scales
            leave the range of exact sampling.

    Example:
        >>> from fractions import Fraction
        >>> one = np.ones(1)
        >>> blocks = Blocks(np.array([4]), 2 * one, 2 * one, one)
        >>> noise = plan_noise(blocks, Budget("pure", Fraction(1, 2)))
        >>> noise.kind, int(noise.scale[0]), noise.loss(blocks) <= 0.5
        ('laplace', 5, True)
    """
    if continuous and budget.kind != "pure":
        raise ConfigurationError(
            message(
                "Continuous noise is for pure budgets",
                where="insecure_float_noise",
                got=budget.kind,
                remedy="leave it out: discrete Gaussian noise loses nothing against continuous",
            )
        )
    amount = float(budget.amount) * (1 - 2 * _SAFETY)
    wanted = _ideal_scales(blocks, budget.kind, amount, continuous)
    if continuous:
        zero = np.zeros(len(wanted), dtype=np.int64)
        noise = Noise("knorm", wanted, zero, blocks.size)
        return _checked(noise, blocks, budget)
    kind = "laplace" if budget.kind == "pure" else "gaussian"
    shift = np.maximum(np.floor(np.log2(wanted / _FINE[kind])), 0).astype(np.int64)
    unit = np.exp2(shift.astype(np.float64))
    # each block pays for its own rounding
    if kind == "laplace":
        stretch = 1 + (shift > 0) * blocks.size * unit / blocks.l1
    else:
        stretch = 1 + (shift > 0) * np.sqrt(blocks.size) * unit / blocks.l2
    scale = np.maximum(np.ceil(wanted / unit * stretch), 1.0)
    if scale.max() > 4 * _FINE[kind] or shift.max() > _MAX_SHIFT:
        raise ConfigurationError(
            message(
                "The budget is too small for exact noise",
                where="budget",
                got=str(budget),
                expected="noise below 2^60 units of the statistic",
                remedy="a larger budget, or fewer features",
            )
        )
    return _checked(Noise(kind, scale, shift, blocks.size), blocks, budget)


def _ideal_scales(blocks: Blocks, kind: str, amount: float, continuous: bool) -> Floats:
    cost = blocks.size * blocks.weight
    if kind == "zcdp":
        total = float((blocks.l2 * np.sqrt(cost)).sum())
        return np.sqrt(blocks.l2 / np.sqrt(cost) * total / (2 * amount))
    reach = blocks.l2 if continuous else blocks.l1
    cost = cost * (blocks.size + 1) if continuous else cost
    total = float(np.cbrt(reach**2 * cost).sum())
    return np.cbrt(reach / cost) * total / amount


def _checked(noise: Noise, blocks: Blocks, budget: Budget) -> Noise:
    """The last gate: never return a mechanism that loses more than it may."""
    loss = noise.loss(blocks)
    if not loss <= float(budget.amount):
        raise PrivacyError(
            message("The planned noise exceeds the budget", got=loss, expected=str(budget))
        )
    return noise
