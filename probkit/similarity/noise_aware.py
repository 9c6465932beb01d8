"""What generated the data, given only a private release: a Bayesian model that knows the noise.

The likelihood is that of ``release_likelihood``. Leaving the mechanism's noise out makes 90 %
intervals cover 3 %; a diagonal covariance of the waves makes them cover 80 %; the full one covers.

The likelihood has many modes. Prior draws are scored, Gauss-Newton runs from the best of them, and
the model is written in coordinates that are white around the winner, where an engine starts: all of
it post-processing, at no privacy cost. Cost: O(m^3) a density, whatever n.

Source: derived here; Bernstein & Sheldon, NeurIPS 2018 and 2019, for noise-aware inference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from probkit.infer import GaussNewton
from probkit.infer.gauss_newton import Linearization, dense_linearization
from probkit.random import as_generator
from probkit.similarity.data_models import DataModel
from probkit.similarity.release import Release
from probkit.similarity.release_likelihood import ReleaseLikelihood

__all__ = ["NoiseAwareModel"]

_SCORED, _PART = 20_000, 2000
_STARTS = 4


class NoiseAwareModel:
    """Pyro model of the law behind a release; give it to an engine, with no data.

    Sites: white coordinates ``z`` (p,), and as deterministic functions of them the law's own
    unknowns, ``location`` and ``scale`` for ``GaussianRecords``. For a release in a larger model,
    take ``ReleaseLikelihood``.

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
        self.records = records
        self.likelihood = ReleaseLikelihood(
            release, records, covariance=covariance, ignore_noise=ignore_noise
        )
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
        pyro.sample("release", self.likelihood.law(theta), obs=self.likelihood.observed)

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
        variance = self.likelihood.variance(theta)
        gap = (self.likelihood.observed - self.likelihood.mean(theta)) ** 2 / variance
        gap = gap + variance.log()
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
        likelihood = model.likelihood
        gap = likelihood.observed - likelihood.mean(flat)
        prior = (flat - model._prior_mean) / model._prior_sd
        return torch.cat([gap / likelihood.variance(self.start).sqrt(), prior])

    def linearize(self, flat: Tensor) -> Linearization:
        return dense_linearization(self.residual, flat)
