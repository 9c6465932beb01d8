"""Posterior of the coefficients of a Kronecker-structured Gaussian regression, exact.

Moments cost one pass (:mod:`probkit.linalg.kronecker_gaussian`). Draws are made by perturbation:
with x0 ~ prior and e0 ~ noise, ``mean + x0 - g o A^H C^-1 (A x0 + e0)`` has the posterior's law.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions.utils import lazy_property

from probkit.linalg.kronecker_gaussian import Conditioned, condition, posterior_variance
from probkit.linalg.mode_products import mode_products, outer
from probkit.random import Seed, as_generator

__all__ = ["KroneckerPosterior"]


class KroneckerPosterior:
    """Gaussian law of ``x`` given ``y``, shaped (*batch, [L,] N_1, ..., N_I).

    Made by :meth:`probkit.distributions.KroneckerSparseNormal.posterior`.

    Args:
        factors: A_k, (*batch, M_k, N_k).
        scales: prior variances, (*batch, N_k).
        noise: variance, (*batch).
        y: (*batch, L, M_1, ..., M_I).
        has_snapshots: whether results keep the dimension L.

    Example:
        >>> one = torch.ones(1, 1).double()
        >>> law = KroneckerPosterior([one], [one[0]], one[0, 0], 4 * one, has_snapshots=False)
        >>> law.mean.item(), round(law.variance.item(), 12)
        (2.0, 0.5)
    """

    def __init__(
        self,
        factors: Sequence[Tensor],
        scales: Sequence[Tensor],
        noise: Tensor,
        y: Tensor,
        *,
        has_snapshots: bool,
    ) -> None:
        self.factors, self.scales, self.noise = list(factors), list(scales), noise
        self.y, self.has_snapshots = y, has_snapshots

    @lazy_property
    def conditioned(self) -> Conditioned:
        """The pass behind the moments, with the log evidence (*batch)."""
        return condition(self.factors, self.scales, self.noise, self.y)

    @property
    def mean(self) -> Tensor:
        """(*batch, [L,] N_1, ..., N_I)."""
        return self._shape(self.conditioned.mean)

    @lazy_property
    def variance(self) -> Tensor:
        """Of the shape of the mean; of complex coefficients, both parts together."""
        found = posterior_variance(self.factors, self.scales, self.noise)
        found = found.unsqueeze(-len(self.factors) - 1)
        return self._shape(found.expand(self.conditioned.mean.shape))

    @property
    def log_evidence(self) -> Tensor:
        """log p(y), (*batch)."""
        return self.conditioned.log_evidence

    def sample(self, num_samples: int, seed: Seed = 0) -> Tensor:
        """Joint draws, ``(num_samples, *shape of the mean)``."""
        num = len(self.factors)
        lead = self.noise.shape
        columns = self.y.shape[-num - 1]
        options: dict[str, Any] = {
            "generator": as_generator(seed, device=self.y.device),
            "dtype": self.y.dtype,
            "device": self.y.device,
        }
        root = outer(self.scales).sqrt().unsqueeze(-num - 1)
        sizes = [a.shape[-1] for a in self.factors]
        x = root * torch.randn(*lead, num_samples * columns, *sizes, **options)
        e = torch.randn(*lead, num_samples * columns, *self.y.shape[-num:], **options)
        noise = self.noise.sqrt().reshape(*lead, *[1] * (num + 1))
        y = mode_products(x, self.factors) + noise * e
        error = x - condition(self.factors, self.scales, self.noise, y).mean
        draws = error.reshape(
            *lead, num_samples, columns, *sizes
        ) + self.conditioned.mean.unsqueeze(-num - 2)
        return self._shape(draws.movedim(len(lead), 0))

    def _shape(self, x: Tensor) -> Tensor:
        return x if self.has_snapshots else x.squeeze(-len(self.factors) - 1)
