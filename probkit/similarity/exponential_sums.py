"""Smooth kernels 1 / (1 + s) by a private sum of exponentials: the paper's construction.

1 / x is a few exponentials for x >= 1, by the trapezoidal rule in log t of
1 / x = int_0^inf exp(-t x) dt:

    1 / x  ~  sum_j c_j exp(-t_j x),    t_j = exp(u + j h),    c_j = h t_j,

with O(log(1/a)^2) terms for a uniform error a (5 for .01, 15 for 1e-4). So 1 / (1 + s) is nearly
sum_j c_j exp(-t_j) exp(-t_j s): one sketch of exp(-t_j s), a Gaussian, exponential or Laplacian
kernel of its own bandwidth, for every term. Each is released with a part of the budget, by the
variance that it adds. ``features`` does without: 1 / (1 + s) is an exact mixture of waves, so that
one sketch has the whole budget, and no bias.

Privacy [D]: one record moves every term's sums by at most the bounds of ``feature_kde``; the terms
are blocks of one statistic, whose losses add up.

Sources: Backurs et al., ICLR 2024, cor. on smooth kernels; Beylkin & Monzon, Appl. Comput. Harmon.
Anal. 19 (2005), exponential sums. Cost: that of all terms' sketches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.privacy.budget import Relation
from probkit.privacy.mechanism import Blocks
from probkit.similarity.design import Answer, Decoder, Design
from probkit.similarity.feature_kde import FeatureKDE, feature_blocks
from probkit.similarity.waves import UNIT

__all__ = ["ExponentialSumKDE", "exponential_terms"]

_TERMS = {"cauchy": ("gaussian", 0.5), "inverse": ("exponential", 1.0)}
_TERMS["inverse_l1"] = ("laplacian", 1.0)
"""kernel: (kernel of its terms, power p in their bandwidth h / t^p)"""
_MOST_TERMS, _STEPS, _STARTS = 40, 60, 60


@cache
def exponential_terms(accuracy: float) -> tuple[Tensor, Tensor]:
    """Coefficients and rates (J,) of the fewest exponentials within ``accuracy`` of 1/x, x >= 1.

    Example:
        >>> c, t = exponential_terms(0.01)
        >>> x = torch.logspace(0, 4, 50, dtype=torch.float64)
        >>> len(c), bool(((c * torch.exp(-t * x[:, None])).sum(1) - 1 / x).abs().max() <= 0.01)
        (5, True)
    """
    x = torch.logspace(0, 3 - math.log10(accuracy), 400, dtype=torch.float64)
    steps = torch.linspace(0.3, 3.0, _STEPS, dtype=torch.float64)
    starts = torch.linspace(math.log(accuracy) - 2, 1.0, _STARTS, dtype=torch.float64)
    h, u = (each.reshape(-1, 1) for each in torch.meshgrid(steps, starts, indexing="ij"))
    total = torch.zeros(len(h), len(x), dtype=torch.float64)
    for number in range(_MOST_TERMS):
        t = torch.exp(u + number * h)
        total += h * t * torch.exp(-t * x)
        error, best = (total - 1 / x).abs().amax(1).min(0)
        if float(error) <= accuracy:
            rates = torch.exp(u[best] + torch.arange(number + 1) * h[best])
            return h[best] * rates, rates
    raise ConfigurationError(
        message(
            f"So close takes more than {_MOST_TERMS} exponentials",
            where="accuracy",
            got=accuracy,
            remedy='method="features", which is exact',
        )
    )


class ExponentialSumKDE(Design):
    """Design of kernel sums of 1 / (1 + s) by exponentials.

    Args:
        dim: number of coordinates.
        kernel: "cauchy", "inverse" or "inverse_l1".
        bandwidth: a length.
        num_features: waves of all terms together.
        accuracy: largest error of the kernel by the sum of exponentials.
        seed: public; of the waves.
        center: (d,) middle of the domain.
        waves: of each term, if they were drawn before.
    """

    kind = "exponentials"
    normalised = True

    def __init__(
        self,
        dim: int,
        kernel: str,
        bandwidth: float,
        num_features: int,
        accuracy: float,
        seed: int,
        center: Sequence[float],
        waves: Sequence[FeatureKDE] | None = None,
    ) -> None:
        if kernel not in _TERMS:
            raise ConfigurationError(
                message(
                    "Sums of exponentials are for kernels 1 / (1 + s)",
                    where="kernel",
                    got=repr(kernel),
                    expected=", ".join(_TERMS),
                    remedy='method="features"',
                )
            )
        self.dim, self.kernel, self.bandwidth = dim, kernel, bandwidth
        self.num_features, self.accuracy, self.seed = num_features, accuracy, seed
        self.center = [float(c) for c in center]
        coefficients, rates = exponential_terms(accuracy)
        self.coefficients = (coefficients * torch.exp(-rates)).tolist()
        base, power = _TERMS[kernel]
        each = max(1, num_features // len(rates))
        self.terms = list(waves or ()) or [
            FeatureKDE(dim, base, [bandwidth / t**power], each, seed + j, self.center)
            for j, t in enumerate(rates.tolist())
        ]
        self.state_size = sum(term.state_size for term in self.terms)
        self.largest = UNIT

    def spec(self) -> dict[str, Any]:
        names = ("dim", "kernel", "bandwidth", "num_features", "accuracy", "seed", "center")
        terms = [term.spec() for term in self.terms]
        return {"kind": self.kind, "terms": terms, **{name: getattr(self, name) for name in names}}

    def tensors(self) -> dict[str, Tensor]:
        parts = [(j, term.tensors()) for j, term in enumerate(self.terms)]
        return {f"{name}.{j}": value for j, part in parts for name, value in part.items()}

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> ExponentialSumKDE:
        settings = dict(spec)
        waves = []
        for j, term in enumerate(settings.pop("terms")):
            inner = {k: v for k, v in term.items() if k != "kind"}
            own = {name: tensors[f"{name}.{j}"] for name in ("waves", "wave_scale")}
            waves.append(FeatureKDE.from_spec(inner, own))
        found = cls(**settings, waves=waves)
        if len(found.coefficients) != len(waves):
            raise ValueError("another number of terms")
        return found

    def contributions(self, records: Tensor, labels: Tensor | None) -> Tensor:
        return torch.cat([term.contributions(records, labels) for term in self.terms])

    def blocks(self, relation: Relation, rows: int) -> Blocks:
        parts = [feature_blocks(term.num_features, relation, rows) for term in self.terms]
        first = 0 if relation == "replace" else 1
        weights = [c**2 * p.weight[first:] for c, p in zip(self.coefficients, parts, strict=True)]
        own = [(p.size[first:], p.l1[first:], p.l2[first:]) for p in parts]
        sizes, l1, l2 = zip(*own, strict=True)
        count = parts[0]
        return Blocks(
            np.concatenate([count.size[:first], *sizes]),
            np.concatenate([count.l1[:first], *l1]),
            np.concatenate([count.l2[:first], *l2]),
            np.concatenate([count.weight[:first], *weights]),
        )

    def decoder(self, estimate: Tensor, variance: Tensor, count: int | None) -> Decoder:
        return _SumDecoder(self, estimate, variance, count)

    def predicted_sd(self, variance: Tensor, count: int | None) -> float:
        own = variance[-self.state_size :].split([term.state_size for term in self.terms])
        parts = [
            (c * term.predicted_sd(v, count)) ** 2
            for c, term, v in zip(self.coefficients, self.terms, own, strict=True)
        ]
        return math.sqrt(sum(parts))

    def scale_of_answers(self) -> float:
        return 1.0


class _SumDecoder(Decoder):
    def __init__(
        self, design: ExponentialSumKDE, estimate: Tensor, variance: Tensor, count: int | None
    ) -> None:
        self.num_records = float(estimate[0] if count is None else count)
        self.count_variance = float(variance[0]) if count is None else 0.0
        sizes = [term.state_size for term in design.terms]
        values = estimate[-design.state_size :].split(sizes)
        spreads = variance[-design.state_size :].split(sizes)
        records = max(1, round(self.num_records))
        self._coefficients = design.coefficients
        self._terms = [
            term.decoder(value, spread, records)
            for term, value, spread in zip(design.terms, values, spreads, strict=True)
        ]

    def query(self, points: Tensor, **options: Any) -> Answer:
        """No options. Errors of the terms add up; the bias of the sum is not in them."""
        if options:
            raise ConfigurationError(message("Unknown option", got=", ".join(options)))
        answers = [term.query(points) for term in self._terms]
        value = sum(c * a.value for c, a in zip(self._coefficients, answers, strict=True))
        errors = [
            sum(
                (c * getattr(a, name)) ** 2
                for c, a in zip(self._coefficients, answers, strict=True)
            )
            for name in ("sd", "noise_sd")
        ]
        return Answer(torch.as_tensor(value), *(torch.as_tensor(e).sqrt() for e in errors))
