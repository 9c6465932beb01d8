"""What generated the data, given only a private release: a Bayesian model that knows the noise.

Records x_i of a law with unknowns theta are seen through a released mean R of m random waves under
zCDP. The mean of the waves is the law's characteristic function psi (``data_models``), and so is
their covariance, since products of waves are waves of sums and differences:

    cos a cos b = (cos(a - b) + cos(a + b)) / 2,  and so on,
    R | theta ~ N(psi_theta, Cov_theta(phi) / n + sigma^2 / n^2 I),

sigma the known scale of the mechanism. The noise is discrete Gaussian of thousands of units, so its
normal density is exact to many digits. Leaving sigma out makes 90 % intervals cover 3 %; a
diagonal Cov(phi) makes them cover 80 %; the full one covers.

The likelihood has many modes. Prior draws are scored, Gauss-Newton runs from the best of them, and
the model is written in coordinates that are white around the winner, where an engine starts: all of
it post-processing, at no privacy cost. Cost: O(m^3) a density, whatever n.

Source: derived here; Bernstein & Sheldon, NeurIPS 2018 and 2019, for noise-aware inference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.infer import GaussNewton
from probkit.infer.gauss_newton import Linearization, dense_linearization
from probkit.random import as_generator
from probkit.similarity.data_models import DataModel
from probkit.similarity.feature_kde import FeatureKDE
from probkit.similarity.release import Release
from probkit.similarity.waves import UNIT
from probkit.validation import check_choice

__all__ = ["NoiseAwareModel"]

_SCORED, _PART = 20_000, 2000
_STARTS = 4
_MOST_WAVES = 256


class NoiseAwareModel:
    """Pyro model of the law behind a release; give it to an engine, with no data.

    Sites: white coordinates ``z`` (p,), and as deterministic functions of them the law's own
    unknowns, ``location`` and ``scale`` for ``GaussianRecords``.

    Args:
        release: of a ``PrivateKDE`` with one bandwidth, method "features", under zCDP and replace.
        records: the law of a record, with its priors.
        covariance: "full" (default), or "diagonal", which is cheaper and undercovers.
        ignore_noise: leave the mechanism's noise out, to see what that does.
        seed: of the search for starting points.

    Raises:
        ConfigurationError: another kind of release, more than 256 waves, or another dimension.

    Example:
        >>> from probkit.infer import NUTS
        >>> from probkit.privacy import PrivacyAccountant
        >>> from probkit.similarity import GaussianRecords, PrivateKDE
        >>> x = 0.5 + 0.8 * torch.randn(3000, 1, dtype=torch.float64)
        >>> sketch = PrivateKDE(1, bandwidth=1.8, num_features=20).update(x)
        >>> release = sketch.release(PrivacyAccountant(epsilon=1.0, delta=1e-6))
        >>> model = NoiseAwareModel(release, GaussianRecords(1))
        >>> result = NUTS(num_samples=50, num_warmup=50).fit(model, seed=0)
        >>> bool(abs(result.posterior.mean()["location"] - 0.5) < 0.3)
        True
    """

    def __init__(
        self,
        release: Release,
        records: DataModel,
        *,
        covariance: Literal["full", "diagonal"] = "full",
        ignore_noise: bool = False,
        seed: int = 0,
    ) -> None:
        check_choice("covariance", "covariance", covariance, ("full", "diagonal"))
        self.records, self.covariance = records, covariance
        self._waves, self._count = _checked(release, records)
        pairs = self._waves[:, None]
        self._pairs = ((pairs + self._waves).flatten(0, 1), (pairs - self._waves).flatten(0, 1))
        self._observed = release.estimate.reshape(-1, 2).T.reshape(-1) / (UNIT * self._count)
        noise = math.sqrt(float(release.noise.variance()[0])) / (UNIT * self._count)
        self.noise_sd = 0.0 if ignore_noise else noise
        self._prior_mean, self._prior_sd = records.prior()
        self._center, self._root = self._search(seed)
        whitener = torch.linalg.inv(self._root)
        self._z_mean = whitener @ (self._prior_mean - self._center)
        spread = whitener * self._prior_sd
        self._z_covariance = spread @ spread.mT

    def __call__(self) -> None:
        """The generative model of the release."""
        prior = dist.MultivariateNormal(self._z_mean, self._z_covariance)
        theta = self._center + self._root @ pyro.sample("z", prior)
        for name, value in self.records.sites(theta).items():
            pyro.deterministic(name, value)
        mean = self.records.characteristic(theta, self._waves)
        law = (
            dist.MultivariateNormal(mean, scale_tril=torch.linalg.cholesky(self._full(theta)))
            if self.covariance == "full"
            else dist.Normal(mean, self._diagonal(theta).sqrt()).to_event(1)
        )
        pyro.sample("release", law, obs=self._observed)

    def _diagonal(self, theta: Tensor) -> Tensor:
        """Variances of the released means, (..., 2m)."""
        mean = self.records.characteristic(theta, self._waves)
        twice = self.records.characteristic(theta, 2 * self._waves)[..., : len(self._waves)]
        second = torch.cat([(1 + twice) / 2, (1 - twice) / 2], -1)
        return (second - mean**2).clamp_min(1e-7) / self._count + self.noise_sd**2

    def _full(self, theta: Tensor) -> Tensor:
        """Covariance of the released means, (2m, 2m)."""
        m = len(self._waves)
        plus, minus = (
            self.records.characteristic(theta, pairs).reshape(2, m, m) for pairs in self._pairs
        )
        cosines, sines = (minus[0] + plus[0]) / 2, (minus[0] - plus[0]) / 2
        mixed = (plus[1] - minus[1]) / 2  # E cos_k sin_l
        second = torch.cat([torch.cat([cosines, mixed], 1), torch.cat([mixed.mT, sines], 1)])
        mean = self.records.characteristic(theta, self._waves)
        ridge = torch.full((2 * m,), self.noise_sd**2 + 1e-12, dtype=torch.float64)
        return (second - torch.outer(mean, mean)) / self._count + torch.diag(ridge)

    def _search(self, seed: int) -> tuple[Tensor, Tensor]:
        """The best of several Gauss-Newton fits, and a root of its posterior covariance."""
        generator = as_generator(seed)
        noise = torch.randn(
            _SCORED, len(self._prior_mean), generator=generator, dtype=torch.float64
        )
        draws = self._prior_mean + self._prior_sd * noise
        scores = torch.cat([self._score(part) for part in draws.split(_PART)])
        engine = GaussNewton(num_posterior_samples=1, num_diagnostic_samples=0)
        found = []
        for start in draws[scores.topk(_STARTS).indices]:
            problem = _Residuals(self, start)
            center = engine.fit(problem, seed=0).state["flat"].detach().reshape(-1)
            found.append((float(self._score(center[None])), center, problem))
        _, center, problem = max(found, key=lambda one: one[0])
        jacobian = torch.autograd.functional.jacobian(problem.residual, center, vectorize=True)
        return center, torch.linalg.inv(torch.linalg.cholesky(jacobian.mT @ jacobian)).mT

    def _score(self, theta: Tensor) -> Tensor:
        """Log density with a diagonal covariance, (draws,)."""
        variance = self._diagonal(theta)
        mean = self.records.characteristic(theta, self._waves)
        gap = (self._observed - mean) ** 2 / variance + variance.log()
        prior = ((theta - self._prior_mean) / self._prior_sd) ** 2
        return -gap.sum(-1) / 2 - prior.sum(-1) / 2


@dataclass(frozen=True)
class _Residuals:
    """The release and the prior as white residuals; variances held at the start."""

    model: NoiseAwareModel
    start: Tensor

    def initialize(self, generator: torch.Generator) -> Tensor:
        return self.start

    def residual(self, flat: Tensor) -> Tensor:
        model = self.model
        gap = model._observed - model.records.characteristic(flat, model._waves)
        prior = (flat - model._prior_mean) / model._prior_sd
        return torch.cat([gap / model._diagonal(self.start).sqrt(), prior])

    def linearize(self, flat: Tensor) -> Linearization:
        return dense_linearization(self.residual, flat)


def _checked(release: Release, records: DataModel) -> tuple[Tensor, int]:
    """Waves and the number of records, if the release is of the kind that the model knows."""
    design = release.design
    if (
        not isinstance(design, FeatureKDE)
        or len(design.bandwidths) != 1
        or release.noise.kind != "gaussian"
        or release.count is None
        or design.num_features > _MOST_WAVES
    ):
        raise ConfigurationError(
            message(
                "This model needs another release",
                where="release",
                got=f"{design.kind}, {release.noise.kind} noise, {release.relation}",
                expected=f"features (at most {_MOST_WAVES}, one bandwidth), zCDP, replace",
            )
        )
    if records.dim != design.dim:
        raise ConfigurationError(
            message(
                "Law and release differ", where="records.dim", got=records.dim, expected=design.dim
            )
        )
    return design.waves.frequencies, release.count
