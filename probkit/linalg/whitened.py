"""Gaussian weights with diagonal prior observed through dense rows, solved in square-root form.

    y = A x + e,   x_j ~ N(0, s_j),   e ~ N(0, v I),   B = A diag(s)^(1/2) = U diag(c) V'

    mean of z = s^(-1/2) x:   V diag(c / (c^2 + v)) U'y
    covariance of z:          I - V diag(c^2 / (c^2 + v)) V'

The normal equations B'B are never formed, so that the condition number is not squared and neither
jitter nor a floor on the noise is needed: with v = 1e-28 c_1^2 the answer is the minimum-norm
solution to rounding. Cost: one thin singular value decomposition, O(N m min(N, m)).

Source: Golub & Van Loan, Matrix Computations, section 6.1 (ridge regression by SVD).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ShapeError, message

__all__ = ["WhitenedPosterior", "whitened_solve"]


@dataclass(frozen=True)
class WhitenedPosterior:
    """Gaussian posterior of weights; see the module for the symbols.

    Attributes:
        mean: (m,) posterior mean of the whitened weights z.
        root: (m,) prior standard deviations s^(1/2).
        singular: (k,) singular values c of the whitened rows.
        right: (m, k) right singular vectors V.
        noise: the variance v.
        log_evidence: log N(y; 0, B B' + v I).
    """

    mean: Float[Tensor, " m"]
    root: Float[Tensor, " m"]
    singular: Float[Tensor, " k"]
    right: Float[Tensor, "m k"]
    noise: float
    log_evidence: float

    @property
    def weights(self) -> Float[Tensor, " m"]:
        """Posterior mean of the weights x."""
        return self.root * self.mean

    @property
    def share(self) -> Float[Tensor, " k"]:
        """c^2 / (c^2 + v): how far the data determine each singular direction, in [0, 1]."""
        return self.singular.square() / (self.singular.square() + self.noise)

    @property
    def rank(self) -> int:
        """Number of singular directions that the data determine better than the prior does."""
        return int((self.share > 0.5).sum())

    def leverage(self) -> Float[Tensor, " m"]:
        """Share of each weight that the data determine; the sum is the effective number."""
        return self.right.square() @ self.share

    def variance(self, rows: Float[Tensor, "n m"]) -> Float[Tensor, " n"]:
        """Posterior variances of ``rows @ x``.

        The part that the data leave open is formed as a sum of squares of what is orthogonal to V,
        not as a difference of two nearly equal variances.
        """
        white = rows * self.root
        along = white @ self.right
        beside = white - along @ self.right.mT
        return beside.square().sum(-1) + along.square() @ (1 - self.share)

    def sample(
        self, num_samples: int, generator: torch.Generator
    ) -> Float[Tensor, "num_samples m"]:
        """Exact draws of the weights x."""
        noise = torch.randn(
            num_samples, len(self.mean), generator=generator, dtype=self.mean.dtype
        ).to(self.mean.device)
        shrink = (1 - self.share).sqrt() - 1
        draw = noise + (noise @ self.right * shrink) @ self.right.mT
        return self.root * (self.mean + draw)


def whitened_solve(
    rows: Float[Tensor, "n m"],
    target: Float[Tensor, " n"],
    scale: Float[Tensor, " m"],
    *,
    noise: float | None = None,
) -> WhitenedPosterior:
    """Posterior of the weights.

    Args:
        rows: A.
        target: y.
        scale: prior variances s.
        noise: variance v; None for 1e-28 times the square of the largest singular value, which
            stands for exact data.

    Raises:
        ShapeError: sizes that do not fit.

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
        >>> target = torch.tensor([3.0, 4.0], dtype=torch.float64)
        >>> prior = torch.ones(2, dtype=torch.float64)
        >>> whitened_solve(rows, target, prior, noise=1.0).weights.tolist()
        [1.5, 1.6]
    """
    if rows.shape != (len(target), len(scale)):
        raise ShapeError(
            message(
                "Rows, data and prior variances do not fit",
                where="rows",
                got=tuple(rows.shape),
                expected=(len(target), len(scale)),
            )
        )
    root = scale.sqrt()
    left, singular, right = torch.linalg.svd(rows * root, full_matrices=False)
    variance = 1e-28 * float(singular[0]) ** 2 if noise is None else noise
    along = left.mT @ target
    total = singular.square() + variance
    mean = right.mT @ (singular / total * along)
    outside = (target.square().sum() - along.square().sum()).clamp(min=0)
    count = len(target) - len(singular)
    quadratic = (along.square() / total).sum() + outside / variance
    logdet = total.log().sum() + count * math.log(variance)
    evidence = -0.5 * (quadratic + logdet + len(target) * math.log(2 * math.pi))
    return WhitenedPosterior(mean, root, singular, right.mT, variance, float(evidence))
