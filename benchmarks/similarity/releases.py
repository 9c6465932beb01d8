"""Many releases of one private state, which only a measurement may do."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from probkit.privacy import Budget, zcdp_of_approximate
from probkit.privacy.budget import as_amount
from probkit.privacy.continuous import knorm_noise
from probkit.privacy.entropy import OSEntropy
from probkit.similarity import Release, Sketch

__all__ = ["approximate", "pure", "releases", "rmse", "without_noise"]


def pure(epsilon: float) -> Budget:
    return Budget("pure", as_amount(epsilon, "epsilon"))


def approximate(epsilon: float, delta: float) -> Budget:
    return Budget("zcdp", zcdp_of_approximate(epsilon, delta))


def releases(
    sketch: Sketch, budget: Budget, count: int, *, continuous: bool = False
) -> Iterator[Release]:
    """``count`` independent releases of one state: a measurement, never for real data."""
    noise = sketch.plan(budget, insecure_float_noise=continuous)
    statistic = sketch.design.statistic(sketch.state, sketch.count, sketch.relation)
    public = sketch.count if sketch.relation == "replace" else None
    for _ in range(count):
        if continuous:
            values = knorm_noise(statistic, noise, OSEntropy())
        else:
            values = noise.apply(statistic, OSEntropy())
        yield Release(sketch.design, sketch.relation, budget, noise, values, public)


def without_noise(sketch: Sketch, points: Tensor, **options: Any) -> Tensor:
    """Exact sums of the structure: what its own approximations leave."""
    statistic = sketch.design.statistic(sketch.state, sketch.count, sketch.relation).double()
    public = sketch.count if sketch.relation == "replace" else None
    decoder = sketch.design.decoder(statistic, torch.zeros_like(statistic), public)
    return decoder.query(points, **options).value


def rmse(errors: list[Tensor]) -> float:
    return math.sqrt(float(torch.stack(errors).square().mean()))
