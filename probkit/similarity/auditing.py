"""Audits of a sketch's mechanism: try to refute what it claims.

``audit_sketch`` releases two neighbouring data sets many times and scores each release by the exact
log-likelihood ratio of the noise (white-box), then certifies a lower bound on the loss
(``privacy.audit``). ``audit_bounds`` searches pairs of records for a change of the statistic above
the claimed bound. Both take an alternative noise or claim, so that tests can plant faults.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from probkit.privacy.audit import AuditResult, distinguishing_audit
from probkit.privacy.budget import Budget
from probkit.privacy.entropy import Entropy, OSEntropy
from probkit.privacy.mechanism import Blocks, Noise
from probkit.similarity.sketch import Sketch

__all__ = ["audit_bounds", "audit_sketch"]

_CHUNK = 2**22


def audit_sketch(
    make: Callable[[], Sketch],
    records: Tensor,
    neighbour: Tensor,
    budget: Budget,
    *,
    labels: tuple[Tensor, Tensor] | None = None,
    noise: Noise | None = None,
    num_runs: int = 20_000,
    alpha: float = 1e-3,
    entropy: Entropy | None = None,
) -> AuditResult:
    """Certified lower bound on the privacy loss of a sketch's release.

    Args:
        make: an empty sketch.
        records, neighbour: two neighbouring data sets, best the worst pair known.
        budget: what is claimed.
        labels: of the two, for sketches with classes.
        noise: the mechanism to attack; None for the sketch's own plan.
        num_runs: releases of each data set.
        alpha: probability that a bound is wrong.
        entropy: source of the noise; None for the operating system's.

    Example:
        >>> from fractions import Fraction
        >>> from probkit.similarity import PrivateDistance
        >>> x = torch.zeros(3, 1, dtype=torch.float64)
        >>> y = torch.tensor([[0.0], [0.0], [1.0]], dtype=torch.float64)
        >>> budget = Budget("pure", Fraction(1))
        >>> make = lambda: PrivateDistance(1, bounds=(0, 1), num_cells=2)
        >>> audit_sketch(make, x, y, budget, num_runs=2000).refutes(epsilon=1)
        False
    """
    source = entropy or OSEntropy()
    statistics = []
    for k, data in enumerate((records, neighbour)):
        sketch = make().update(data, None if labels is None else labels[k])
        statistics.append(sketch.design.statistic(sketch.state, sketch.count, sketch.relation))
        plan = noise or sketch.plan(budget)
    draws = [_releases(statistic, plan, num_runs, source) for statistic in statistics]
    centres = [_shifted(statistic, plan) for statistic in statistics]
    scores = [_log_ratio(values, centres, plan) for values in draws]
    return distinguishing_audit(scores[0], scores[1], alpha=alpha)


def audit_bounds(
    make: Callable[[], Sketch],
    draw: Callable[[torch.Generator], Tensor],
    *,
    claim: Blocks | None = None,
    pairs: int = 200,
    seed: int = 0,
) -> float:
    """Largest change of the statistic found over the claimed bound; above 1 refutes the claim.

    Args:
        make: an empty sketch without classes.
        draw: a random record (d,), of any size: it is clipped.
        claim: bounds to attack; None for the design's own.
        pairs: random pairs tried, besides opposite ones.
        seed: of the records.
    """
    sketch = make()
    design, relation = sketch.design, sketch.relation
    bounds = claim or design.blocks(relation, 1)
    generator = torch.Generator().manual_seed(seed)
    ends = np.cumsum(bounds.size)
    starts = ends - bounds.size
    worst = 0.0
    for k in range(pairs):
        first = draw(generator)
        second = -first if k % 2 else draw(generator)
        moved = design.statistic(design.contributions(first[None], None), 1, relation)
        if relation == "replace":
            moved = moved - design.statistic(design.contributions(second[None], None), 1, relation)
        change = moved.to(torch.float64).numpy()
        l1 = np.add.reduceat(np.abs(change), starts)
        l2 = np.sqrt(np.add.reduceat(change**2, starts))
        worst = max(worst, float((l1 / bounds.l1).max()), float((l2 / bounds.l2).max()))
    return worst


def _shifted(statistic: Tensor, noise: Noise) -> np.ndarray:
    shift = np.repeat(noise.shift, noise.size)
    return statistic.reshape(-1).numpy() >> shift


def _releases(statistic: Tensor, noise: Noise, count: int, entropy: Entropy) -> np.ndarray:
    length = int(noise.size.sum())
    parts = []
    for start in range(0, count, max(1, _CHUNK // length)):
        rows = min(max(1, _CHUNK // length), count - start)
        wide = Noise(
            noise.kind,
            np.tile(noise.scale, rows),
            np.tile(noise.shift, rows),
            np.tile(noise.size, rows),
        )
        parts.append(wide.apply(statistic.reshape(-1).repeat(rows), entropy).reshape(rows, length))
    return torch.cat(parts).numpy()


def _log_ratio(values: np.ndarray, centres: list[np.ndarray], noise: Noise) -> np.ndarray:
    """log p_0 - log p_1 of every release."""
    scale = np.repeat(noise.scale, noise.size)
    gaps = [(values - centre) / scale for centre in centres]
    if noise.kind == "laplace":
        return (np.abs(gaps[1]) - np.abs(gaps[0])).sum(-1)
    return (gaps[1] ** 2 - gaps[0] ** 2).sum(-1) / 2
