"""The law of what a private release publishes, given the law of the records: a likelihood.

Records x_i of a law with unknowns theta are seen through a released mean R of m random waves under
zCDP. The mean of the waves is the law's characteristic function psi (``data_models``), and so is
their covariance, since products of waves are waves of sums and differences:

    cos a cos b = (cos(a - b) + cos(a + b)) / 2,  and so on,
    R | theta ~ N(psi_theta, Cov_theta(phi) / n + sigma^2 / n^2 I),

sigma the known scale of the mechanism. The noise is discrete Gaussian of thousands of units, so its
normal density is exact to many digits. Waves around a centre c are turned by exp(i w c), which
leaves the noise's law as it is. Cost: O(m^3) a density, whatever n.

Source: derived here; Bernstein & Sheldon, NeurIPS 2018 and 2019, for noise-aware inference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pyro.distributions import MultivariateNormal, Normal, TorchDistribution
from torch import Tensor

from probkit.errors import ConfigurationError, ShapeError, message
from probkit.similarity.data_models import DataModel
from probkit.similarity.feature_kde import FeatureKDE
from probkit.similarity.release import Release
from probkit.similarity.waves import UNIT
from probkit.validation import check_choice

__all__ = ["ReleaseLikelihood"]

_MOST_WAVES = 256
_FLOOR, _LEAST_VARIANCE = 1e-12, 1e-7


class ReleaseLikelihood:
    """What a Pyro model needs to take releases as data: their law, and what was observed.

    Several releases of one design (the same settings and seed of ``PrivateKDE``) are a batch, each
    with its own number of records and its own noise. All is post-processing of what was published:
    no model spends any privacy.

    Args:
        release: of a ``PrivateKDE`` with one bandwidth, method "features", under zCDP and replace;
            or a sequence of J such releases of the same waves.
        records: the law of a record; its priors play no part.
        covariance: "full" (default), or "diagonal", which is cheaper and undercovers.
        ignore_noise: leave the mechanism's noise out, to see what that does.
        device: of ``observed`` and of the laws.

    Attributes:
        observed: the released means, (2m,) or (J, 2m), float64: cosines, then sines.
        noise_sd: of the mechanism, in units of ``observed``, () or (J,).
        count: numbers of records, () or (J,).

    Raises:
        ConfigurationError: another kind of release, more than 256 waves, another dimension, or
            releases of different waves.

    Example:
        >>> import pyro
        >>> import pyro.distributions as dist
        >>> from probkit.infer import HMC
        >>> from probkit.privacy import PrivacyAccountant
        >>> from probkit.similarity import GaussianRecords, PrivateKDE
        >>> def publish(records):
        ...     sketch = PrivateKDE(1, bandwidth=3.0, num_features=8).update(records)
        ...     return sketch.release(PrivacyAccountant(epsilon=1.0, delta=1e-6))
        >>> towns = [0.5 + torch.randn(n, 1, dtype=torch.float64) for n in (2000, 3000)]
        >>> likelihood = ReleaseLikelihood([publish(x) for x in towns], GaussianRecords(1))
        >>> zero = torch.zeros((), dtype=torch.float64)
        >>> def model():
        ...     log_scale = pyro.sample("log_scale", dist.Normal(zero, 0.5))
        ...     with pyro.plate("towns", 2):
        ...         location = pyro.sample("location", dist.Normal(zero, 1.0))
        ...         theta = torch.stack([location, log_scale.expand(location.shape)], -1)
        ...         pyro.sample("release", likelihood.law(theta), obs=likelihood.observed)
        >>> result = HMC(num_samples=50, num_warmup=40, num_chains=2).fit(model, seed=0)
        >>> bool((result.posterior.mean()["location"] - 0.5).abs().max() < 0.4)
        True
    """

    def __init__(
        self,
        release: Release | Sequence[Release],
        records: DataModel,
        *,
        covariance: Literal["full", "diagonal"] = "full",
        ignore_noise: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        check_choice("covariance", "covariance", covariance, ("full", "diagonal"))
        self.records, self.covariance = records, covariance
        releases = [release] if isinstance(release, Release) else list(release)
        design = _common_design(releases, records)
        waves = design.waves.frequencies
        count = torch.tensor([one.num_records for one in releases], dtype=torch.float64)
        variance = torch.stack([one.noise.variance()[0] for one in releases]).to(count)
        noise = 0 * count if ignore_noise else variance.sqrt() / (UNIT * count)
        cosine, sine = torch.stack([one.estimate.reshape(-1, 2) for one in releases]).unbind(-1)
        angle = waves @ design.center
        turned = (
            cosine * angle.cos() - sine * angle.sin(),
            sine * angle.cos() + cosine * angle.sin(),
        )
        observed = torch.cat(turned, -1) / (UNIT * count[:, None])
        self._waves = waves.to(device)
        which = 0 if isinstance(release, Release) else slice(None)
        self.count, self.noise_sd, self.observed = (
            part[which].to(device) for part in (count, noise, observed)
        )

    def law(self, theta: Tensor) -> TorchDistribution:
        """Distribution of ``observed``, event (2m,).

        Args:
            theta: unknowns of the records' law, (..., p), or (..., J, p) for J releases; for
                ``GaussianRecords`` the location and the log of the scale.

        Raises:
            ShapeError: another last shape.
        """
        wanted = (*self.count.shape, len(self.records.prior()[0]))
        if theta.shape[theta.ndim - len(wanted) :] != wanted:
            raise ShapeError(
                message(
                    "Unknowns do not fit law and releases",
                    where="theta",
                    got=tuple(theta.shape),
                    expected=f"(..., {', '.join(map(str, wanted))})",
                )
            )
        theta = theta.to(self.observed)
        mean = self.mean(theta)
        if self.covariance == "diagonal":
            return Normal(mean, self.variance(theta).sqrt()).to_event(1)
        return MultivariateNormal(
            mean, scale_tril=torch.linalg.cholesky(self.full_covariance(theta))
        )

    def mean(self, theta: Tensor) -> Tensor:
        """Means of the released numbers, (..., 2m), for theta as ``law`` takes it."""
        return self.records.characteristic(theta, self._waves)

    def variance(self, theta: Tensor) -> Tensor:
        """Their variances, (..., 2m): all that ``covariance="diagonal"`` knows."""
        twice = self.records.characteristic(theta, 2 * self._waves)[..., : len(self._waves)]
        second = torch.cat([(1 + twice) / 2, (1 - twice) / 2], -1)
        sampling = (second - self.mean(theta) ** 2).clamp_min(_LEAST_VARIANCE)
        return sampling / self.count[..., None] + self.noise_sd[..., None] ** 2

    def full_covariance(self, theta: Tensor) -> Tensor:
        """Their covariance, (..., 2m, 2m)."""
        m = len(self._waves)
        first, second = self._waves[:, None], self._waves
        plus, minus = (
            self.records.characteristic(theta, pairs.flatten(0, 1)).unflatten(-1, (2, m, m))
            for pairs in (first + second, first - second)
        )
        (plus_cos, plus_sin), (minus_cos, minus_sin) = plus.unbind(-3), minus.unbind(-3)
        mixed = (plus_sin - minus_sin) / 2  # E cos_k sin_l
        above = torch.cat([(minus_cos + plus_cos) / 2, mixed], -1)
        below = torch.cat([mixed.mT, (minus_cos - plus_cos) / 2], -1)
        mean = self.mean(theta)
        sampling = torch.cat([above, below], -2) - mean[..., None] * mean[..., None, :]
        noise = (self.noise_sd**2 + _FLOOR)[..., None, None] * torch.eye(2 * m).to(mean)
        return sampling / self.count[..., None, None] + noise


def _common_design(releases: Sequence[Release], records: DataModel) -> FeatureKDE:
    """The design of all releases, if it is of the kind that is known."""
    if not releases:
        raise ConfigurationError(message("No release", where="release", expected="at least one"))
    designs = [_checked(release, records) for release in releases]
    for number, design in enumerate(designs):
        if design.center.ne(designs[0].center).any() or not torch.equal(
            design.waves.frequencies, designs[0].waves.frequencies
        ):
            raise ConfigurationError(
                message(
                    "Releases of different waves are no batch",
                    where=f"release[{number}]",
                    expected="the bandwidth, number of features, centre and seed of release[0]",
                    remedy="a ReleaseLikelihood and a site for each design",
                )
            )
    return designs[0]


def _checked(release: Release, records: DataModel) -> FeatureKDE:
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
    return design
