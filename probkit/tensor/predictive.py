"""Predictive distributions of an entry given mean and variance of f there.

Gaussian and Student-t noise are scale mixtures of normals over the noise precision: a Gamma mixing
density (q(tau) itself, or the Student-t's), integrated by the trapezoidal rule in log precision,
which converges geometrically. So the predictive law of y is a finite mixture of normals with a
common mean, with exact density, distribution function and quantiles. Counts and labels are
mixtures over f by Gauss-Hermite nodes.

f's own posterior is a polynomial in Gaussians and is taken as normal with its exact mean and
variance; draws of the factors (``FunctionalTucker.sample``) go without that.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy import special
from torch import Tensor

__all__ = ["CountPredictive", "LabelPredictive", "Predictive", "RealPredictive", "gamma_nodes"]

_NUM_NODES = 64
_NUM_HERMITE = 24


class Predictive(ABC):
    """Predictive law of each of Q entries."""

    @abstractmethod
    def mean(self) -> Float[Tensor, " Q"]:
        """Predictive means."""

    @abstractmethod
    def sd(self) -> Float[Tensor, " Q"]:
        """Predictive standard deviations."""

    @abstractmethod
    def log_prob(self, y: Float[Tensor, " Q"]) -> Float[Tensor, " Q"]:
        """Log predictive density or probability."""

    @abstractmethod
    def quantile(self, level: float) -> Float[Tensor, " Q"]:
        """Predictive quantiles."""


def gamma_nodes(shape: float, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights for expectations under Gamma(shape, rate).

    Example:
        >>> nodes, weights = gamma_nodes(2.0, 4.0)
        >>> round(float((nodes * weights).sum()), 6)
        0.5
    """
    if shape > 1e6:
        return np.array([shape / rate]), np.ones(1)
    low = math.log(max(special.gammaincinv(shape, 1e-13), 1e-300))
    high = math.log(special.gammainccinv(shape, 1e-16))
    grid = np.linspace(low, high, _NUM_NODES)
    log_weight = shape * grid - np.exp(grid)
    weights = np.exp(log_weight - log_weight.max())
    return np.exp(grid) / rate, weights / weights.sum()


@dataclass
class RealPredictive(Predictive):
    """Mixture of normals with common mean: ``y ~ sum_j weight_j N(mean, spread^2 variance_j)``.

    Args:
        location: (Q,) mean of f.
        variance: (Q,) variance of f.
        noise_precision: (J,) nodes of the noise precision.
        node_weights: (J,) their weights.
        spread: calibration factor on the standard deviation.
        noise_variance: the noise's variance (infinite where it has none).
    """

    location: Tensor
    variance: Tensor
    noise_precision: Tensor
    node_weights: Tensor
    spread: float = 1.0
    noise_variance: float = math.inf

    def mean(self) -> Tensor:
        return self.location

    def sd(self) -> Tensor:
        return self.spread * (self.variance + self.noise_variance).sqrt()

    def log_prob(self, y: Tensor) -> Tensor:
        sds = self._sds()
        z = (y - self.location)[:, None] / sds
        terms = -0.5 * z.square() - sds.log() - 0.5 * math.log(2 * math.pi)
        return torch.logsumexp(terms + self.node_weights.log(), -1)

    def cdf(self, y: Tensor) -> Tensor:
        """Predictive distribution function."""
        z = (y - self.location)[:, None] / self._sds()
        return (torch.special.ndtr(z) * self.node_weights).sum(-1)

    def quantile(self, level: float) -> Tensor:
        return self.location + self.spread * self._standard_quantile(level)

    def _sds(self) -> Tensor:
        return self.spread * (self.variance[:, None] + 1 / self.noise_precision).sqrt()

    def _standard_quantile(self, level: float) -> Tensor:
        """Quantile of the centred, unscaled mixture by bisection and Newton steps.

        It is a smooth function of the variance of f alone, so it is solved for on a grid of
        variances when there are many entries, and interpolated in log variance.
        """
        if level == 0.5:
            return torch.zeros_like(self.location)
        variance = self.variance
        if variance.numel() <= 2048:
            return self._solve(variance, level)
        floor = float(1 / self.noise_precision.max()) * 1e-6 + 1e-300
        log_v = torch.log(variance + floor)
        grid = torch.linspace(float(log_v.min()), float(log_v.max()) + 1e-9, 1024).to(variance)
        values = self._solve((grid.exp() - floor).clamp_min(0), level)
        step = grid[1] - grid[0]
        position = ((log_v - grid[0]) / step).clamp(0, grid.numel() - 1.000001)
        left = position.floor().long().clamp(max=grid.numel() - 2)
        fraction = position - left
        return values[left] * (1 - fraction) + values[left + 1] * fraction

    def _solve(self, variance: Tensor, level: float) -> Tensor:
        sds = (variance[:, None] + 1 / self.noise_precision).sqrt()
        bound = float(sds.max()) * 40
        low = torch.full_like(variance, -bound)
        high = torch.full_like(variance, bound)
        for _ in range(60):
            middle = 0.5 * (low + high)
            below = (torch.special.ndtr(middle[:, None] / sds) * self.node_weights).sum(-1) < level
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return 0.5 * (low + high)


@dataclass
class CountPredictive(Predictive):
    """Poisson or negative-binomial counts with log-normal mean ``exp(f)``.

    ``size`` is the negative binomial's dispersion; infinite for Poisson.
    """

    location: Tensor
    variance: Tensor
    size: float = math.inf

    def mean(self) -> Tensor:
        return torch.exp(self.location + 0.5 * self.variance)

    def sd(self) -> Tensor:
        mean = self.mean()
        second = mean.square() * torch.exp(self.variance)
        return (mean + second / self.size + second - mean.square()).sqrt()

    def log_prob(self, y: Tensor) -> Tensor:
        f, weights = _hermite(self.location, self.variance)
        y = y[:, None]
        if math.isinf(self.size):
            terms = y * f - f.exp() - torch.lgamma(y + 1)
        else:
            size = torch.as_tensor(self.size, dtype=f.dtype, device=f.device)
            count = torch.lgamma(y + size) - torch.lgamma(size) - torch.lgamma(y + 1)
            log_total = torch.logaddexp(f, size.log())
            terms = count + y * (f - log_total) + size * (size.log() - log_total)
        return torch.logsumexp(terms + weights.log(), -1)

    def quantile(self, level: float) -> Tensor:
        f, weights = _hermite(self.location, self.variance)
        rate, node_weights = f.exp().cpu().numpy(), weights.cpu().numpy()
        low = np.full(rate.shape[0], -1.0)
        high = np.ceil(4 + 2 * rate.max(-1) + 10 * np.sqrt(rate.max(-1) + 1))
        while np.any(short := self._cdf(high, rate, node_weights) < level):
            high[short] *= 2
        while np.any(high - low > 1):
            middle = np.floor((low + high) / 2)
            below = self._cdf(middle, rate, node_weights) < level
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return torch.as_tensor(high).to(self.location)

    def _cdf(self, count: np.ndarray, rate: np.ndarray, weights: np.ndarray) -> np.ndarray:
        k = np.maximum(count, 0)[:, None]
        if math.isinf(self.size):
            values = special.gammaincc(k + 1, rate)
        else:
            values = special.betainc(self.size, k + 1, self.size / (self.size + rate))
        return np.where(count < 0, 0.0, (values * weights).sum(-1))


@dataclass
class LabelPredictive(Predictive):
    """Labels in {0, 1} with logit f."""

    location: Tensor
    variance: Tensor

    def mean(self) -> Tensor:
        f, weights = _hermite(self.location, self.variance)
        return (torch.sigmoid(f) * weights).sum(-1)

    def sd(self) -> Tensor:
        mean = self.mean()
        return (mean * (1 - mean)).sqrt()

    def log_prob(self, y: Tensor) -> Tensor:
        mean = self.mean().clamp(1e-300, 1 - 1e-16)
        return y * mean.log() + (1 - y) * torch.log1p(-mean)

    def quantile(self, level: float) -> Tensor:
        return (1 - self.mean() < level).to(self.location)


def _hermite(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    points, masses = np.polynomial.hermite_e.hermegauss(_NUM_HERMITE)
    nodes = torch.as_tensor(points).to(mean)
    weights = torch.as_tensor(masses / masses.sum()).to(mean)
    return mean[:, None] + variance.sqrt()[:, None] * nodes, weights
