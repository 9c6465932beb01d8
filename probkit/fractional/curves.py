"""Smooth unknown functions of time by knots, with a Gaussian-process prior whose size is learned.

A curve is ``f(t) = B(t) u``: u its values at M even knots, B the natural cubic spline::

    u ~ N(centre, wide^2 11' + alpha^2 M52(|t - t'| / l)),   M52: Matern 5/2 of variance one

The prior of l (in spans of the data) and alpha penalises distance from a constant::

    p(l, alpha) = (lambda_1 / 2) l^(-3/2) exp(-lambda_1 l^(-1/2)) lambda_2 exp(-lambda_2 alpha)

with P(l < .1) = .05 and P(alpha > largest) = .05. A constant curve has one knot and no l, alpha.
Source of the prior: Fuglstad, Simpson, Lindgren and Rue, JASA 114 (2019), theorem 2.6 (d = 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Curve", "prior_root"]

_SHORTEST, _TAIL = 0.1, 0.05
_JITTER = 1e-8


@dataclass(frozen=True)
class Curve:
    """One unknown function.

    Attributes:
        name: of its sites.
        begin, end: of its time axis.
        num_knots: at least four, or one for a constant.
        centre: of the prior.
        wide: prior standard deviation of the mean over time.
        largest: the value that alpha exceeds with probability .05.
    """

    name: str
    begin: float
    end: float
    num_knots: int
    centre: float
    wide: float
    largest: float

    @property
    def is_constant(self) -> bool:
        return self.num_knots == 1

    @property
    def spacing(self) -> float:
        """Distance of the knots, in spans."""
        return 1.0 if self.is_constant else 1 / (self.num_knots - 1)

    def basis(self, times: Float[Tensor, " P"]) -> Float[Tensor, "P M"]:
        """B at times between ``begin`` and ``end``."""
        if self.is_constant:
            return torch.ones(len(times), 1, dtype=torch.float64)
        from scipy.interpolate import CubicSpline

        knots = np.linspace(self.begin, self.end, self.num_knots)
        spline = CubicSpline(knots, np.eye(self.num_knots), bc_type="natural")
        return torch.as_tensor(spline(times.numpy()))

    def covariance(self, hyper: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch M M"]:
        """Prior covariance of the knots, for hyper = (log l, log alpha); of size 0 if constant."""
        size = self.num_knots
        wide = torch.full((size, size), self.wide**2, dtype=torch.float64)
        if self.is_constant:
            return wide.expand(*hyper.shape[:-1], 1, 1)
        knots = torch.linspace(0, 1, size, dtype=torch.float64)
        length, alpha = hyper.exp()[..., None, None].unbind(-3)
        x = math.sqrt(5) * (knots[:, None] - knots).abs() / length
        correlation = (1 + x + x * x / 3) * torch.exp(-x)
        return wide + alpha**2 * (correlation + _JITTER * torch.eye(size, dtype=torch.float64))

    def log_prior(self, hyper: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
        """Log density of (log l, log alpha)."""
        if self.is_constant:
            return hyper.new_zeros(hyper.shape[:-1])
        log_length, log_alpha = hyper.unbind(-1)
        first = -math.log(_TAIL) * math.sqrt(_SHORTEST)
        second = -math.log(_TAIL) / self.largest
        length = math.log(first / 2) - log_length / 2 - first * torch.exp(-log_length / 2)
        return length + math.log(second) + log_alpha - second * log_alpha.exp()


def prior_root(
    curves: list[Curve], hyper: Float[Tensor, "*batch H"], extra: list[float]
) -> Float[Tensor, "*batch F F"]:
    """Cholesky factor of the prior of all knots, and of scalars with prior sds ``extra``.

    NaN where a covariance is not positive definite to rounding.
    """
    batch, position, found = hyper.shape[:-1], 0, []
    size = sum(curve.num_knots for curve in curves) + len(extra)
    column = 0
    for curve in curves:
        width = 0 if curve.is_constant else 2
        covariance = curve.covariance(hyper[..., position : position + width])
        root, info = torch.linalg.cholesky_ex(covariance)
        root = torch.where((info == 0)[..., None, None], root, torch.nan)
        right = size - column - curve.num_knots
        found.append(torch.nn.functional.pad(root, (column, right)))
        column, position = column + curve.num_knots, position + width
    if extra:
        sds = torch.diag(torch.tensor(extra, dtype=torch.float64))
        rows = torch.nn.functional.pad(sds, (column, 0))
        found.append(rows.expand(*batch, *rows.shape))
    return torch.cat(found, -2)
