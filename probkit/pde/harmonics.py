"""Harmonic features of a box and their derivatives: the basis of every solver of this family.

On a side [a, a + L] extended to the period T, the features are

    1, cos(w_j (x - a)), sin(w_j (x - a)),   w_j = 2 pi j / T,   j = 1 .. J

and any derivative is a power of w_j times a rotated pair, so that no kernel is ever differentiated.
With prior variances s_j = 2 S(j / T) / T they are the trapezoid rule on the spectral density S of a
stationary kernel, exact to exp(-r (T - L)^2) for a Gaussian-mixture spectrum. Several dimensions
take products of features. Cost: O(N J) a matrix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Harmonics", "product_rows"]


@dataclass(frozen=True)
class Harmonics:
    """Harmonics of one side.

    Args:
        origin: a, the left end.
        length: L, the side's length.
        period: T >= L; T = L makes every function periodic.
        num: J, harmonics besides the constant.

    Example:
        >>> side = Harmonics(0.0, 1.0, 2.0, 1)
        >>> side.rows(torch.zeros(1, dtype=torch.float64), 1).abs().tolist()  # 0, w sin 0, w cos 0
        [[0.0, 0.0, 3.141592653589793]]
    """

    origin: float
    length: float
    period: float
    num: int

    @property
    def num_features(self) -> int:
        """Number of features, 2 J + 1."""
        return 2 * self.num + 1

    def frequencies(self) -> Float[Tensor, " size"]:
        """Cycles per unit of every feature: the constant, the cosines, the sines."""
        positive = torch.arange(1, self.num + 1, dtype=torch.float64) / self.period
        return torch.cat([positive.new_zeros(1), positive, positive])

    def rows(self, x: Float[Tensor, " n"], order: int = 0) -> Float[Tensor, "n size"]:
        """The ``order``-th derivative of every feature at the points ``x``."""
        speed = 2 * math.pi * torch.arange(self.num + 1, dtype=x.dtype, device=x.device)
        speed = speed / self.period
        angle = (x - self.origin)[:, None] * speed
        cosine, sine = angle.cos(), angle.sin()
        pair = ((cosine, sine), (-sine, cosine), (-cosine, -sine), (sine, -cosine))[order % 4]
        power = speed**order
        return torch.cat([pair[0] * power, (pair[1] * power)[:, 1:]], 1)


def product_rows(
    sides: Sequence[Harmonics], x: Float[Tensor, "n d"], orders: Sequence[int]
) -> Float[Tensor, "n m"]:
    """Products of one-dimensional features at points, differentiated ``orders`` times.

    Args:
        sides: one a dimension.
        x: points.
        orders: of differentiation, one a dimension.

    Returns:
        Rows over all m = prod(size) features, the last dimension fastest.
    """
    found = sides[0].rows(x[:, 0], orders[0])
    for k in range(1, len(sides)):
        rows = sides[k].rows(x[:, k], orders[k])
        found = (found[:, :, None] * rows[:, None, :]).flatten(1)
    return found
