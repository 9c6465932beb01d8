"""Gaussian process regression in weight space from noisy sums.

With D = 2m waves phi(x) and f(x) = phi(x)'w, w ~ N(0, (s^2 / m) I), the data enter through
A = sum phi phi' and b = sum phi y alone. Both are released with noise:

    A~ = A + N_A (symmetric, sd sigma_A),    b~ = b + N_b (sd sigma_b).

Decoding knows the noise: b~ given w has mean A w and covariance v A + tau^2 I, where v is the
variance of an observation and tau^2 = sigma_b^2 + sigma_A^2 E norm(w)^2. Eigenvalues of A~ are
freed of noise by the inverse of lambda = a + sigma_A^2 D / a, and are zero below the spectral norm
2 sigma_A sqrt(D) of the noise, where the posterior is the prior. In A's eigenbasis all is diagonal:

    precision_j = a_j^2 / (v a_j + tau^2) + m / s^2,   mean_j = a_j b_j / (v a_j + tau^2) / prec_j.

Privacy [D]: a record's integer features f have pairs of norm at most U = 2^12 and L1 norm at most
U1, its target is an integer in [-Y, Y]. Then norm(f f')_F = norm(f)^2 <= m U^2, and under replace
norm(f f' - g g')_F^2 = norm(f)^4 + norm(g)^4 - 2 (f'g)^2 <= 2 m^2 U^4: sqrt(2) is right here, since
the last term cannot be positive. The upper triangle that is released is no longer than the matrix.
norm(f y) <= sqrt(m) U Y, and twice that under replace. In L1, (m U1)^2 and m U1 Y, twice each.

Cost: O(n D^2) to update, O(D^3) once to decode, O(D^2) a query.

Sources: derived here; the eigenvalue map is Benaych-Georges & Nadakuditi, Advances in Mathematics
227 (2011), for a Wigner matrix.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.privacy.budget import Relation
from probkit.privacy.mechanism import Blocks
from probkit.similarity.design import Answer, Decoder, Design
from probkit.similarity.feature_kde import FeatureKDE
from probkit.similarity.waves import UNIT, pair_bounds
from probkit.validation import check_positive

__all__ = ["TARGET_UNIT", "WeightPosterior", "WeightSpace"]

_DROP = 2**8
_UNIT = UNIT // _DROP
TARGET_UNIT = 2**12
"""integer of a target at its bound"""


class WeightSpace(Design):
    """Design of a regression.

    Args:
        features: waves, with one bandwidth.
        target_bound: targets are clipped to [-target_bound, target_bound].
        noise_sd: of an observation; a default that a query may change.
        amplitude: prior sd of the function; likewise.
    """

    kind = "weight space"

    def __init__(
        self, features: FeatureKDE, target_bound: float, noise_sd: float, amplitude: float
    ) -> None:
        self.features, self.target_bound = features, target_bound
        self.noise_sd, self.amplitude = noise_sd, amplitude
        self.dim = features.dim
        self.size = 2 * features.num_features
        self.state_size = self.size * (self.size + 1) // 2 + self.size
        self.largest = _UNIT**2

    def spec(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "features": self.features.spec(),
            "target_bound": self.target_bound,
            "noise_sd": self.noise_sd,
            "amplitude": self.amplitude,
        }

    def tensors(self) -> dict[str, Tensor]:
        return self.features.tensors()

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> WeightSpace:
        settings = dict(spec)
        inner = {k: v for k, v in settings.pop("features").items() if k != "kind"}
        return cls(FeatureKDE.from_spec(inner, tensors), **settings)

    def contributions(self, records: Tensor, labels: Tensor | None) -> Tensor:
        """``labels`` are the integer targets."""
        assert labels is not None
        pairs = torch.stack(self.features.waves.pairs(records), -1).flatten(1)
        # towards zero, so that norms do not grow; products and sums stay exact below 2^53
        f = torch.div(pairs, _DROP, rounding_mode="trunc").to(torch.float64)
        upper = _triangle(self.size)
        products = (f.mT @ f)[upper[0], upper[1]]
        return torch.cat([products, f.mT @ labels.to(f)]).to(torch.int64)

    def statistic(self, state: Tensor, count: int, relation: Relation) -> Tensor:
        """The state alone: the trace of A tells how many records there are."""
        return state.reshape(-1)

    def blocks(self, relation: Relation, rows: int) -> Blocks:
        l1, l2 = (math.ceil(bound / _DROP) for bound in pair_bounds())
        m, size = self.features.num_features, self.size
        both, root = (2.0, math.sqrt(2)) if relation == "replace" else (1.0, 1.0)
        safe = 1 + 1e-12
        numbers = self.state_size - size
        square = 2 * self.amplitude**2 * size / numbers / float(_UNIT) ** 4
        linear = (self.target_bound / (_UNIT * TARGET_UNIT)) ** 2
        return Blocks(
            np.array([numbers, size]),
            rows * both * np.array([float(m * l1) ** 2, float(m * l1 * TARGET_UNIT)]),
            rows
            * safe
            * np.array([root * m * float(l2) ** 2, both * math.sqrt(m) * l2 * TARGET_UNIT]),
            np.array([square, linear]),
        )

    def decoder(self, estimate: Tensor, variance: Tensor, count: int | None) -> Decoder:
        return _WeightDecoder(self, estimate, variance, count)

    def predicted_sd(self, variance: Tensor, count: int | None) -> float:
        """Of the kernel-weighted sum of targets."""
        unit = _UNIT * TARGET_UNIT / self.target_bound
        return math.sqrt(float(variance[-1]) / self.features.num_features) / unit

    def scale_of_answers(self) -> float:
        return self.target_bound


class WeightPosterior:
    """Posterior of the weights given noisy sums, diagonal in the eigenbasis of A.

    Args:
        square: A~ (D, D), symmetric.
        linear: b~ (D,).
        square_sd, linear_sd: of the noise of their entries.
        noise_sd, amplitude: of the regression.

    Attributes:
        mean: (D,).
        root: (D, D) with covariance root root'.
        by_noise: (D, D) root of the part of the covariance of ``mean`` that the noise is due to.
    """

    def __init__(
        self,
        square: Tensor,
        linear: Tensor,
        *,
        square_sd: float,
        linear_sd: float,
        noise_sd: float,
        amplitude: float,
    ) -> None:
        size = len(linear)
        found, basis = torch.linalg.eigh(square)
        edge = 2 * square_sd * math.sqrt(size)
        inner = (found**2 - edge**2).clamp_min(0).sqrt()
        a = torch.where(found > edge, (found + inner) / 2, torch.zeros_like(found))
        prior = 2 * amplitude**2 / size  # s^2 / m
        tau = linear_sd**2 + square_sd**2 * size * prior
        spread = noise_sd**2 * a + tau
        precision = a**2 / spread + 1 / prior if tau > 0 else a / noise_sd**2 + 1 / prior
        gain = torch.where(a > 0, a / spread, torch.zeros_like(a)) / precision
        self.mean = basis @ (gain * (basis.mT @ linear))
        self.root = basis * precision.rsqrt()
        self.by_noise = basis * (gain * math.sqrt(tau))


class _WeightDecoder(Decoder):
    def __init__(
        self, design: WeightSpace, estimate: Tensor, variance: Tensor, count: int | None
    ) -> None:
        self._design = design
        size, upper = design.size, _triangle(design.size)
        unit = float(_UNIT)
        square = torch.zeros(size, size, dtype=torch.float64)
        square[upper[0], upper[1]] = estimate[:-size] / unit**2
        self._square = square + square.triu(1).mT
        target = design.target_bound / TARGET_UNIT
        self._linear = estimate[-size:] / unit * target
        self._square_sd = math.sqrt(float(variance[0])) / unit**2
        self._linear_sd = math.sqrt(float(variance[-1])) / unit * target
        trace = float(self._square.diagonal().sum()) / design.features.num_features
        self.num_records = float(count) if count is not None else trace
        if count is None:
            self.count_variance = 2 * self._square_sd**2 / design.features.num_features

    def query(self, points: Tensor, **options: Any) -> Answer:
        """The function with its posterior sd; options: ``noise_sd``, ``amplitude``."""
        posterior = self._posterior(options)
        phi = self._features(points)
        mean, root, by_noise = (
            t.to(phi) for t in (posterior.mean, posterior.root, posterior.by_noise)
        )
        sd = torch.linalg.vector_norm(phi @ root, dim=-1)
        return Answer(phi @ mean, sd, torch.linalg.vector_norm(phi @ by_noise, dim=-1))

    def _features(self, points: Tensor) -> Tensor:
        return torch.stack(self._design.features.waves.real_pairs(points), -1).flatten(1)

    def _posterior(self, options: Mapping[str, Any]) -> WeightPosterior:
        unknown = set(options) - {"noise_sd", "amplitude"}
        if unknown:
            raise ConfigurationError(message("Unknown option", got=", ".join(sorted(unknown))))
        if not options:
            return self._usual
        return self._fitted(
            check_positive("noise_sd", options.get("noise_sd", self._design.noise_sd)),
            check_positive("amplitude", options.get("amplitude", self._design.amplitude)),
        )

    @cached_property
    def _usual(self) -> WeightPosterior:
        return self._fitted(self._design.noise_sd, self._design.amplitude)

    def _fitted(self, noise_sd: float, amplitude: float) -> WeightPosterior:
        return WeightPosterior(
            self._square,
            self._linear,
            square_sd=self._square_sd,
            linear_sd=self._linear_sd,
            noise_sd=noise_sd,
            amplitude=amplitude,
        )


def _triangle(size: int) -> Tensor:
    return torch.triu_indices(size, size)
