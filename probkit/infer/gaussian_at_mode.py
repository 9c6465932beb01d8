"""The Gaussian of a mode and its precision: draws and densities at the precision's own cost.

    q(z) = N(z; m, H^-1),    log q(z) = -(z - m)' H (z - m) / 2 + (log det H - d log 2 pi) / 2

``H`` is a dense matrix or a ``LinearOperator`` that can draw by itself (``inverse_mvn_samples``, as
``BlockTridiagonalLinearOperator`` does), which is never made dense.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from linear_operator import LinearOperator
from torch import Tensor

from probkit.errors import ConfigurationError, NotPositiveDefiniteError, message

__all__ = ["GaussianAtMode", "Precision", "solve_precision"]

Precision: TypeAlias = Tensor | LinearOperator


class GaussianAtMode:
    """A Gaussian by its mean and precision.

    Args:
        mode: the mean.
        precision: symmetric positive definite, ``(size, size)``.

    Raises:
        NotPositiveDefiniteError: the precision is not positive definite.
        ConfigurationError: the precision is an operator that cannot draw.

    Example:
        >>> gaussian = GaussianAtMode(torch.zeros(2), torch.diag(torch.tensor([4.0, 1.0])))
        >>> gaussian.sample(3, torch.Generator()).shape, round(float(gaussian.logdet), 4)
        (torch.Size([3, 2]), 1.3863)
    """

    def __init__(self, mode: Float[Tensor, " size"], precision: Precision) -> None:
        self.mode, self.precision = mode, precision
        self._factor: Any = None
        if isinstance(precision, Tensor):
            self._factor = _factorise(precision)
            self.logdet = 2 * self._factor.diagonal().log().sum()
            return
        if not hasattr(precision, "inverse_mvn_samples"):
            raise ConfigurationError(
                message(
                    "The curvature's operator cannot draw from the Gaussian it is the precision of",
                    where="curvature",
                    got=type(precision).__name__,
                    expected="a method inverse_mvn_samples(num_samples, generator)",
                    remedy="return a dense tensor, or an operator such as "
                    "BlockTridiagonalLinearOperator",
                )
            )
        self.logdet = precision.logdet()

    def sample(
        self, num_samples: int, generator: torch.Generator
    ) -> Float[Tensor, "num_samples size"]:
        """Independent draws."""
        if not isinstance(self.precision, Tensor):
            draws: Tensor = self.precision.inverse_mvn_samples(num_samples, generator)
            return self.mode + draws
        shape, device = (num_samples, self.mode.numel()), generator.device
        noise = torch.randn(shape, generator=generator, dtype=self.mode.dtype, device=device)
        noise = noise.to(self.mode.device)
        root = torch.linalg.solve_triangular(self._factor.mT, noise.mT, upper=True)
        return self.mode + root.mT

    def log_prob(self, flat: Float[Tensor, "draw size"]) -> Float[Tensor, " draw"]:
        """Log density of points."""
        away = flat - self.mode
        quadratic = (away * (self.precision @ away.mT).mT).sum(-1)
        return (self.logdet - self.mode.numel() * math.log(2 * math.pi) - quadratic) / 2


def solve_precision(precision: Precision, right: Float[Tensor, " size"]) -> Float[Tensor, " size"]:
    """``H^-1 right``.

    Raises:
        NotPositiveDefiniteError: a dense matrix is not positive definite.
    """
    if isinstance(precision, Tensor):
        return torch.cholesky_solve(right[:, None], _factorise(precision))[:, 0]
    solution: Tensor = precision.solve(right)
    return solution


def _factorise(matrix: Tensor) -> Tensor:
    factor, info = torch.linalg.cholesky_ex((matrix + matrix.mT) / 2)
    if bool(info > 0) or not bool(factor.isfinite().all()):
        raise NotPositiveDefiniteError(
            message(
                "The curvature at this point is not positive definite",
                where=f"unknown number {int(info) - 1} of the flat vector",
                causes=(
                    "the data do not determine this direction and its prior is flat",
                    "the point is a saddle or the edge of a heavy tail, not a mode",
                ),
                remedy="use proper priors, other starting points, or HMC",
            )
        )
    return factor
