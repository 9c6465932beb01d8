"""Kernel sums of every class at once, for classification by mean similarity.

The state holds a sum of random waves (``feature_kde``) and a count for each of C classes.

Privacy [D]: under add_remove a record touches one class: the bounds of one kernel sketch, and 1 for
the counts. Under replace its label may change too. Then two classes move, each by at most the
add_remove bound (L2 together sqrt(2) times that, L1 twice); if it keeps its label, one class moves
by twice the bound. The larger holds: L1 2 m, L2 2 sqrt(m) in units of one pair; counts L1 2,
L2 sqrt(2). Forgetting the label change, or taking sqrt(2) sqrt(m), is wrong. Class counts are
private under both relations: only their sum is public under replace.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probkit.privacy.budget import Relation
from probkit.privacy.mechanism import Blocks
from probkit.similarity.design import Answer, Decoder, Design
from probkit.similarity.feature_kde import FeatureKDE, feature_blocks
from probkit.similarity.waves import UNIT

__all__ = ["ClassFeatures"]

_COUNT_WEIGHT = 0.01


class ClassFeatures(Design):
    """Design of class-wise kernel means; answers are (Q, C).

    Args:
        features: waves shared by all classes.
        num_classes: C.
    """

    kind = "class features"

    def __init__(self, features: FeatureKDE, num_classes: int) -> None:
        self.features, self.num_classes = features, num_classes
        self.dim = features.dim
        self.state_size = num_classes * (1 + features.state_size)
        self.largest = UNIT

    def spec(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "num_classes": self.num_classes,
            "features": self.features.spec(),
        }

    def tensors(self) -> dict[str, Tensor]:
        return self.features.tensors()

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> ClassFeatures:
        inner = {k: v for k, v in spec["features"].items() if k != "kind"}
        return cls(FeatureKDE.from_spec(inner, tensors), spec["num_classes"])

    def contributions(self, records: Tensor, labels: Tensor | None) -> Tensor:
        assert labels is not None
        out = torch.zeros(self.num_classes, 1 + self.features.state_size, dtype=torch.int64)
        for label in range(self.num_classes):
            chosen = records[(labels == label).to(records.device)]
            out[label, 0] = len(chosen)
            if len(chosen):
                out[label, 1:] = self.features.contributions(chosen, None).cpu()
        return out.reshape(-1)

    def statistic(self, state: Tensor, count: int, relation: Relation) -> Tensor:
        """All class counts, then all features."""
        table = state.reshape(self.num_classes, -1)
        return torch.cat([table[:, 0], table[:, 1:].reshape(-1)])

    def blocks(self, relation: Relation, rows: int) -> Blocks:
        replace = relation == "replace"
        one = feature_blocks(
            self.features.num_features, "replace" if replace else "add_remove", rows
        )
        l1, l2 = float(one.l1[-1]), float(one.l2[-1])
        counts = rows * np.array([2.0, math.sqrt(2) * (1 + 1e-12)] if replace else [1.0, 1.0])
        return Blocks(
            np.array([self.num_classes, self.num_classes * int(one.size[-1])]),
            np.array([counts[0], l1]),
            np.array([counts[1], l2]),
            np.array([_COUNT_WEIGHT**2, float(one.weight[-1])]),
        )

    def decoder(self, estimate: Tensor, variance: Tensor, count: int | None) -> Decoder:
        return _ClassDecoder(self, estimate, variance, count)

    def predicted_sd(self, variance: Tensor, count: int | None) -> float:
        return self.features.predicted_sd(variance, count)

    def scale_of_answers(self) -> float:
        return 1.0


class _ClassDecoder(Decoder):
    def __init__(
        self, design: ClassFeatures, estimate: Tensor, variance: Tensor, count: int | None
    ) -> None:
        classes = design.num_classes
        counts, rest = estimate[:classes], estimate[classes:].reshape(classes, -1)
        noise = variance[classes:].reshape(classes, -1)
        self.num_records = float(counts.sum() if count is None else count)
        # a class whose released count is below 1 has no usable mean: 1 keeps it finite
        self.counts = counts.clamp_min(1.0)
        self._decoders = [
            design.features.decoder(rest[k], noise[k], max(1, round(float(self.counts[k]))))
            for k in range(classes)
        ]

    def query(self, points: Tensor, **options: Any) -> Answer:
        """Class means of the similarity, (Q, C)."""
        parts = [decoder.query(points, **options) for decoder in self._decoders]
        scale = 1 / self.counts.to(points.device)
        return Answer(
            torch.stack([part.value for part in parts], -1) * scale,
            torch.stack([part.sd for part in parts], -1) * scale,
            torch.stack([part.noise_sd for part in parts], -1) * scale,
        )
