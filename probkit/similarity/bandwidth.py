"""Bandwidth of a density, chosen from a release: free, since the records are not looked at again.

The density estimate of bandwidth h is f_h(y) = c_h mean_i exp(-norm(x_i - y)^2 / h^2), with
c_h = (pi h^2)^(-d/2). Its integrated square error, up to a constant, is estimated by least-squares
cross-validation,

    score(h) = c_g S(g) - 2 c_h (n S(h) - 1) / (n - 1),    g = sqrt(2) h,

where S(h) = mean_ij exp(-norm(x_i - x_j)^2 / h^2) is a sum over waves of abs(psi)^2, psi being the
released means. Noise adds its variance to every abs(psi)^2, which is known and taken off.

Source: Rudemo, Scandinavian Journal of Statistics 9 (1982), for the score; the rest derived here.
Cost: O(m) a bandwidth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from probkit.errors import ConfigurationError, message
from probkit.similarity.feature_kde import FeatureKDE
from probkit.similarity.release import Release
from probkit.similarity.validation import check_length
from probkit.similarity.waves import UNIT

__all__ = ["BandwidthChoice", "choose_bandwidth"]


@dataclass(frozen=True)
class BandwidthChoice:
    """Scores of bandwidths.

    Attributes:
        best: of least score.
        scores: the cross-validation score by bandwidth; differences matter only.
    """

    best: float
    scores: dict[float, float]


def choose_bandwidth(release: Release, candidates: Sequence[float]) -> BandwidthChoice:
    """Choose the bandwidth of a Gaussian density estimate by cross-validation on a release.

    Args:
        release: of ``PrivateKDE(dim, "gaussian", bandwidth=[...])``.
        candidates: bandwidths h; h and sqrt(2) h must lie between the release's least and largest.

    Raises:
        ConfigurationError: another release, no candidates, or one out of that range.

    Example:
        >>> import torch
        >>> from probkit.privacy import PrivacyAccountant
        >>> from probkit.similarity import PrivateKDE
        >>> x = torch.randn(3000, 1, dtype=torch.float64)
        >>> sketch = PrivateKDE(1, bandwidth=[0.1, 0.5, 2.5], num_features=3000).update(x)
        >>> release = sketch.release(PrivacyAccountant(epsilon=2.0, delta=1e-6))
        >>> choose_bandwidth(release, [0.3, 1.7]).best  # noise is drawn anew: all but surely
        0.3
    """
    design = release.design
    if not isinstance(design, FeatureKDE) or design.kernel != "gaussian" or not len(candidates):
        raise ConfigurationError(
            message(
                "Bandwidths are chosen from releases of Gaussian waves",
                where="release, candidates",
                got=(design.kind, len(candidates)),
                expected='PrivateKDE(dim, "gaussian", bandwidth=[...]) and some candidates',
            )
        )
    n, low, high = release.num_records, min(design.bandwidths), max(design.bandwidths)
    scores = {}
    for candidate in candidates:
        h = check_length("candidates", candidate)
        if h < low or math.sqrt(2) * h > high:
            raise ConfigurationError(
                message(
                    "The release has no waves for this bandwidth",
                    where="candidates",
                    got=h,
                    expected=f"between {low:g} and {high / math.sqrt(2):g}",
                )
            )
        wide = _pair_mean(release, design, math.sqrt(2) * h) * _constant(math.sqrt(2) * h, design)
        own = (n * _pair_mean(release, design, h) - 1) / (n - 1) * _constant(h, design)
        scores[h] = wide - 2 * own
    return BandwidthChoice(min(scores, key=lambda h: scores[h]), scores)


def _pair_mean(release: Release, design: FeatureKDE, bandwidth: float) -> float:
    """S(h), freed of the noise's variance."""
    size = 2 * design.num_features
    pairs = release.estimate[-size:].reshape(-1, 2) / UNIT
    noise = release.noise.variance()[-size:].reshape(-1, 2) / UNIT**2
    square = (pairs**2 - noise).sum(-1) / release.num_records**2
    return float((design.importance(bandwidth) * square).mean())


def _constant(bandwidth: float, design: FeatureKDE) -> float:
    return math.exp(-design.dim / 2 * math.log(math.pi * bandwidth**2))
