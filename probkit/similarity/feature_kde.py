"""Kernel sums by random waves: the release is a noisy sum of (cos w x, sin w x).

With m waves of the kernel's spectral law (``spectral_laws``), C_j = sum_i cos(w_j x_i) and S_j
likewise,

    sum_i k(x_i - y) = E (1/m) sum_j v_j (C_j cos(w_j y) + S_j sin(w_j y)),

with importance weights v_j where the waves are drawn for several bandwidths.

Privacy [D]: a record's integer pairs have norms at most L1, L2 (``waves.pair_bounds``, about
sqrt(2) 2^20 and 2^20), so the 2m integers move by at most m L1 and sqrt(m) L2 under add_remove,
and twice that under replace: cosines reach -1, so that sqrt(2) in place of 2, which the kernel
itself would suggest, is wrong. Under add_remove the count is released too.

Error: noise of sd s n^-1 / sqrt(2 rho) in the mean, independent of m; under pure DP it grows with
sqrt(m), so that there is a best m. The interval uses the spread of the m terms, which holds both
noise and the sampling of waves. Cost: O(n d m) to update, O(d m) a query.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.privacy.budget import Relation
from probkit.privacy.mechanism import Blocks, Noise
from probkit.similarity.design import Answer, Decoder, Design
from probkit.similarity.reduced_waves import ReducedWaves
from probkit.similarity.spectral_laws import CompletelyMonotone, Law, law_of, norms_of
from probkit.similarity.structured_waves import StructuredWaves
from probkit.similarity.waves import UNIT, Waves, pair_bounds

__all__ = ["FeatureKDE", "feature_blocks"]

_COUNT_WEIGHT = 0.05
"""error of the count relative to the kernel mean: a typical mean of 1/20"""


class FeatureKDE(Design):
    """Design of kernel sums by random waves.

    Args:
        dim: number of coordinates.
        kernel: a name of ``spectral_laws.KERNELS``, or a ``CompletelyMonotone``.
        bandwidths: lengths h; waves are drawn for all of them in turn.
        num_features: m.
        seed: public; of the waves.
        center: (d,) middle of the domain, which reaches 1024 times the least bandwidth.
        law: the waves, if they were drawn before.
        projection: "dense", or "structured" for one bandwidth of a radial kernel, or "jl".
        reduced_dim: k of "jl".
        signs: of "structured" and "jl", if they were drawn before.
    """

    kind = "features"
    normalised = True

    def __init__(
        self,
        dim: int,
        kernel: str | CompletelyMonotone,
        bandwidths: Sequence[float],
        num_features: int,
        seed: int,
        center: Sequence[float],
        law: Law | None = None,
        projection: str = "dense",
        reduced_dim: int | None = None,
        signs: Tensor | None = None,
    ) -> None:
        self.dim, self.seed, self.num_features = dim, seed, num_features
        self.kernel = kernel if isinstance(kernel, str) else "completely monotone"
        self.bandwidths = [float(h) for h in bandwidths]
        self.center = torch.as_tensor(center, dtype=torch.float64)
        draw = norms_of if projection == "structured" else law_of
        self.reduced_dim = reduced_dim
        self.law = law or draw(kernel, dim=reduced_dim or dim, num=num_features, seed=seed)
        turn = torch.arange(num_features) % len(self.bandwidths)
        lengths = torch.tensor(self.bandwidths, dtype=torch.float64)[turn]
        self.projection = projection
        self.waves: Waves | StructuredWaves | ReducedWaves
        if projection == "structured":
            norms = self.law.waves[:, 0] / lengths
            least = self.bandwidths[0]
            self.waves = StructuredWaves(norms, dim, least, self.center, seed, signs)
        else:
            self._raw = self.law.waves / lengths[:, None]
            least = min(self.bandwidths)
            if projection == "jl":
                _require_radial(self.law)
                self.waves = ReducedWaves(self._raw, dim, least, self.center, seed, signs)
            else:
                self.waves = Waves(self._raw, least, self.center)
        self.state_size = 2 * num_features
        self.largest = UNIT

    def spec(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "dim": self.dim,
            "kernel": self.kernel,
            "bandwidths": self.bandwidths,
            "num_features": self.num_features,
            "seed": self.seed,
            "center": self.center.tolist(),
            "family": self.law.family,
            "projection": self.projection,
            "reduced_dim": self.reduced_dim,
        }

    def tensors(self) -> dict[str, Tensor]:
        """The waves themselves: a seed may mean other numbers in another version of torch."""
        drawn = {"waves": self.law.waves, "wave_scale": self.law.scale}
        return drawn if isinstance(self.waves, Waves) else drawn | {"signs": self.waves.signs}

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> FeatureKDE:
        settings = dict(spec)
        law = Law(settings.pop("family"), tensors["waves"], tensors["wave_scale"])
        full = settings.get("reduced_dim") or settings["dim"]
        width = 1 if settings["projection"] == "structured" else full
        if law.waves.shape != (settings["num_features"], width):
            raise ValueError("waves of another shape")
        signs = tensors.get("signs")
        if settings["projection"] != "dense" and signs is None and settings["seed"] is None:
            raise ValueError("neither the seed nor the signs of the waves were stored")
        return cls(**settings, law=law, signs=signs)

    def contributions(self, records: Tensor, labels: Tensor | None) -> Tensor:
        return self.waves.sums(records).reshape(-1)

    def blocks(self, relation: Relation, rows: int) -> Blocks:
        return feature_blocks(self.num_features, relation, rows)

    def decoder(self, estimate: Tensor, variance: Tensor, count: int | None) -> Decoder:
        return _FeatureDecoder(self, estimate, variance, count)

    def predicted_sd(self, variance: Tensor, count: int | None) -> float:
        return math.sqrt(float(variance[-1]) / self.num_features) / UNIT

    def advice(self, noise: Noise, count: int) -> str | None:
        """Under pure DP the noise's variance grows with m and that of the waves is 1 / (2m)."""
        growth = (self.predicted_sd(noise.variance(), count) / count) ** 2 / self.num_features
        best = max(1, round(math.sqrt(1 / (2 * growth))))
        if noise.kind == "gaussian" or self.num_features <= 1.1 * best:
            return None
        return (
            f"With {self.num_features} waves the noise exceeds the error of the waves themselves: "
            f"about {best} would answer best, or a (epsilon, delta) budget, where more are free."
        )

    def scale_of_answers(self) -> float:
        return 1.0

    def importance(self, bandwidth: float) -> Tensor:
        """(m,) weights of the waves for one bandwidth, relative to the mixture drawn from."""
        if len(self.bandwidths) == 1 and bandwidth == self.bandwidths[0]:
            return torch.ones(self.num_features, dtype=torch.float64)
        drawn = torch.tensor(self.bandwidths, dtype=torch.float64)
        ratio = self.law.log_density_ratio(bandwidth, drawn, self._raw)  # log p_h - log p_b
        return 1 / torch.exp(-ratio).mean(-1)


def feature_blocks(num_features: int, relation: Relation, rows: int) -> Blocks:
    """Bounds for m pairs, and for the count under add_remove."""
    l1, l2 = pair_bounds()
    reach = rows * (2 if relation == "replace" else 1)
    size = [2 * num_features]
    weight = [1.0 / (num_features**2 * float(UNIT) ** 2) / 2]
    blocks = Blocks(
        np.array(size),
        np.array([float(reach * num_features * l1)]),
        np.array([reach * math.sqrt(num_features) * l2 * (1 + 1e-12)]),
        np.array(weight),
    )
    if relation == "replace":
        return blocks
    return Blocks(
        np.array([1, *size]),
        np.array([float(rows), *blocks.l1]),
        np.array([float(rows), *blocks.l2]),
        np.array([_COUNT_WEIGHT**2, *weight]),
    )


class _FeatureDecoder(Decoder):
    def __init__(
        self, design: FeatureKDE, estimate: Tensor, variance: Tensor, count: int | None
    ) -> None:
        self._design = design
        self.num_records = float(estimate[0] if count is None else count)
        self.count_variance = float(variance[0]) if count is None else 0.0
        skip = 1 if count is None else 0
        self.pairs = estimate[skip:].reshape(-1, 2) / UNIT
        self.variance = float(variance[-1]) / UNIT**2

    def query(self, points: Tensor, **options: Any) -> Answer:
        """Options: ``bandwidth``, needed if the release was drawn for several."""
        design = self._design
        bandwidth = options.pop("bandwidth", None)
        if options:
            raise ConfigurationError(message("Unknown option", got=", ".join(options)))
        weights = design.importance(_bandwidth(design, bandwidth)).to(points.device)
        cosine, sine = design.waves.real_pairs(points)
        pairs = self.pairs.to(points.device)
        terms = weights * (cosine * pairs[:, 0] + sine * pairs[:, 1])
        m = design.num_features
        value = terms.mean(-1)
        spread = terms.var(-1).div(m).sqrt() if m > 1 else torch.full_like(value, math.inf)
        noise = torch.full_like(value, float((weights**2).sum().sqrt()) / m)
        return Answer(value, spread, noise * math.sqrt(self.variance))


def _require_radial(law: Law) -> None:
    if law.family == "product_cauchy":
        raise ConfigurationError(
            message(
                "A reduction keeps l2 distances only",
                where="projection, kernel",
                got="jl",
                remedy='projection="dense"',
            )
        )


def _bandwidth(design: FeatureKDE, bandwidth: Any) -> float:
    known = design.bandwidths
    if bandwidth is None and len(known) == 1:
        return known[0]
    # between the extremes the mixture has waves of every size; beyond, weights would explode
    if bandwidth is None or not min(known) <= float(bandwidth) <= max(known):
        raise ConfigurationError(
            message(
                "This release needs a bandwidth that it was drawn for",
                where="bandwidth",
                got=bandwidth,
                expected=f"between {min(known)} and {max(known)}",
            )
        )
    return float(bandwidth)
