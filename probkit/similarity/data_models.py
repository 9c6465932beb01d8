"""Laws of records with a closed characteristic function, for ``noise_aware``.

    Gaussian   psi(w) = exp(-s^2 norm(w)^2 / 2) (cos w mu, sin w mu)
    mixture    psi(w) = sum_k pi_k psi_k(w)

Their unknowns are one flat vector with an independent normal prior each, so that a search and a
sampler need to know no more about them.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from probkit.validation import check_positive, check_whole

__all__ = ["DataModel", "GaussianMixtureRecords", "GaussianRecords"]


class DataModel(Protocol):
    """What ``NoiseAwareModel`` needs to know about the law of a record."""

    @property
    def dim(self) -> int:
        """Coordinates of a record."""

    def prior(self) -> tuple[Tensor, Tensor]:
        """Means and sds of the unknowns' normal priors, two (p,)."""

    def characteristic(self, theta: Tensor, waves: Tensor) -> Tensor:
        """Means of cos(w x), then of sin(w x), (..., 2 M), for theta (..., p) and waves (M, d)."""

    def sites(self, theta: Tensor) -> dict[str, Tensor]:
        """The unknowns by name, theta (p,)."""


class GaussianRecords:
    """Records N(location, scale^2 I).

    Args:
        dim: coordinates of a record.
        location_sd: of the prior N(0, location_sd^2) of every coordinate of the location.
        scale_median, scale_spread: log scale ~ N(log scale_median, scale_spread^2).

    Raises:
        ConfigurationError: a number that is not positive.

    Example:
        >>> law = GaussianRecords(2)
        >>> law.characteristic(torch.zeros(3), torch.ones(1, 2)).round(decimals=3)
        tensor([0.3680, 0.0000])
    """

    def __init__(
        self,
        dim: int,
        *,
        location_sd: float = 1.0,
        scale_median: float = 1.0,
        scale_spread: float = 0.5,
    ) -> None:
        self.dim = check_whole("dim", dim, 1, 2**16)
        self.location_sd = check_positive("location_sd", location_sd)
        self.scale_median = check_positive("scale_median", scale_median)
        self.scale_spread = check_positive("scale_spread", scale_spread)

    def prior(self) -> tuple[Tensor, Tensor]:
        """Means and sds, two (d + 1,)."""
        mean, sd = torch.zeros(2, self.dim + 1, dtype=torch.float64)
        mean[-1], sd[-1] = math.log(self.scale_median), self.scale_spread
        sd[:-1] = self.location_sd
        return mean, sd

    def characteristic(self, theta: Tensor, waves: Tensor) -> Tensor:
        """See ``DataModel``."""
        square = (waves**2).sum(-1)
        damping = torch.exp(-torch.exp(2 * theta[..., -1:]) * square / 2)
        angle = theta[..., :-1] @ waves.mT
        return torch.cat([damping * angle.cos(), damping * angle.sin()], -1)

    def sites(self, theta: Tensor) -> dict[str, Tensor]:
        """``location`` (d,) and ``scale``."""
        return {"location": theta[:-1], "scale": theta[-1].exp()}


class GaussianMixtureRecords:
    """Records of K Gaussians N(location_k, scale_k^2 I) with weights.

    Components have no order: a sampler that starts in one labelling stays in it.

    Args:
        dim: coordinates of a record.
        num_components: K, at least 2.
        location_sd, scale_median, scale_spread: of every component, see ``GaussianRecords``.

    Raises:
        ConfigurationError: a number out of range.

    Example:
        >>> law = GaussianMixtureRecords(2, 3)
        >>> law.characteristic(torch.zeros(11), torch.ones(1, 2)).round(decimals=3)
        tensor([0.3680, 0.0000])
    """

    def __init__(
        self,
        dim: int,
        num_components: int,
        *,
        location_sd: float = 1.0,
        scale_median: float = 1.0,
        scale_spread: float = 0.5,
    ) -> None:
        self.num_components = check_whole("num_components", num_components, 2, 100)
        self._one = GaussianRecords(
            dim, location_sd=location_sd, scale_median=scale_median, scale_spread=scale_spread
        )
        self.dim = self._one.dim

    def prior(self) -> tuple[Tensor, Tensor]:
        """Of K - 1 logits, N(0, 1), and of every component in turn."""
        mean, sd = self._one.prior()
        free = torch.zeros(self.num_components - 1, dtype=torch.float64)
        tiled = (mean.repeat(self.num_components), sd.repeat(self.num_components))
        return torch.cat([free, tiled[0]]), torch.cat([free + 1, tiled[1]])

    def characteristic(self, theta: Tensor, waves: Tensor) -> Tensor:
        """See ``DataModel``."""
        weights, components = self._split(theta)
        return (weights[..., None] * self._one.characteristic(components, waves)).sum(-2)

    def sites(self, theta: Tensor) -> dict[str, Tensor]:
        """``weight`` (K,), ``location`` (K, d) and ``scale`` (K,)."""
        weights, components = self._split(theta)
        return {
            "weight": weights,
            "location": components[:, :-1],
            "scale": components[:, -1].exp(),
        }

    def _split(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (..., K) and components (..., K, d + 1)."""
        count = self.num_components
        logits = torch.cat([torch.zeros_like(theta[..., :1]), theta[..., : count - 1]], -1)
        return logits.softmax(-1), theta[..., count - 1 :].unflatten(-1, (count, self.dim + 1))
