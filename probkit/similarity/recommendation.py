"""``recommend``: which data structure, with what error, before anything is spent.

Compares the candidates' predicted errors: noise from the exact scales of each mechanism, plus
1 / (2 m) of variance for m random waves. It looks at public numbers only (n, d, budget, domain).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from probkit.errors import ConfigurationError
from probkit.privacy.budget import Budget, Relation
from probkit.privacy.errors import AccuracyWarning
from probkit.random import Seed
from probkit.similarity.distance import PrivateDistance
from probkit.similarity.grid_kde import MAX_CELLS
from probkit.similarity.kde import PrivateKDE
from probkit.similarity.sketch import Sketch
from probkit.similarity.spectral_laws import KERNELS
from probkit.similarity.validation import check_length, public_seed
from probkit.validation import check_whole, unknown

__all__ = ["Candidate", "Recommendation", "recommend"]

_FEATURES = (64, 256, 1024, 4096, 8192)


@dataclass(frozen=True)
class Candidate:
    """One possible structure.

    Attributes:
        build: makes the empty sketch.
        settings: its arguments.
        error: predicted root mean square error of a mean similarity.
        noise: the part due to privacy noise.
    """

    build: Callable[[], Sketch]
    settings: dict[str, Any]
    error: float
    noise: float


@dataclass(frozen=True)
class Recommendation:
    """The best candidate, why, and the others.

    Attributes:
        best: of least predicted error.
        others: the rest, best first.
        reason: a sentence.
    """

    best: Candidate
    others: tuple[Candidate, ...]
    reason: str

    def build(self) -> Sketch:
        """The empty sketch of the best candidate."""
        return self.best.build()


def recommend(
    num_records: int,
    dim: int,
    similarity: str,
    budget: Budget,
    *,
    relation: Relation = "replace",
    bandwidth: float = 1.0,
    bounds: Any = None,
    radius: float | None = None,
    seed: Seed = 0,
) -> Recommendation:
    """Pick a data structure by predicted error.

    Args:
        num_records: n, as far as it is public.
        dim: d.
        similarity: a kernel, or "l1", "l2", "l2sq".
        budget: of the release.
        relation: the neighbouring relation.
        bandwidth: of a kernel.
        bounds: domain, for l1 and for a kernel on a grid.
        radius: domain of l2 and l2sq.
        seed: public; None or a generator draws one, the same for every sketch that is built.

    Raises:
        ConfigurationError: an unknown similarity, a missing domain, or a setting out of range.
        DtypeError: what is no seed.

    Example:
        >>> from fractions import Fraction
        >>> budget = Budget("pure", Fraction(1))
        >>> recommend(10**5, 2, "gaussian", budget, bounds=(0, 9)).best.settings["method"]
        'grid'
        >>> recommend(10**5, 50, "gaussian", budget).best.settings["num_features"]
        8192
    """
    n = check_whole("num_records", num_records, 2, 2**40)
    common: dict[str, Any] = {"relation": relation, "seed": public_seed(seed)}
    if similarity in KERNELS:
        length = check_length("bandwidth", bandwidth)
        candidates = _kernels(n, dim, similarity, budget, length, bounds, common)
    elif similarity in ("l1", "l2", "l2sq"):
        domain = {"bounds": bounds} if similarity == "l1" else {"radius": radius}
        settings = [{"metric": similarity, **domain, **common}]
        if similarity == "l1":
            settings.append({**settings[0], "method": "tree", "consistent": True})
        if similarity == "l2":
            settings = [{**settings[0], "num_cells": g} for g in (16, 64, 512)]
        candidates = [_candidate(PrivateDistance, dim, s, budget, n, 0.0) for s in settings]
    else:
        raise unknown("similarity", "similarity", similarity, [*KERNELS, "l1", "l2", "l2sq"])
    ranked = sorted(candidates, key=lambda c: c.error)
    best = ranked[0]
    share = best.noise / best.build().design.scale_of_answers()
    if share > 0.5:
        warnings.warn(
            f"Even the best structure has noise of {share:.2g} of the largest answer.",
            AccuracyWarning,
            stacklevel=2,
        )
    reason = (
        f"predicted error {best.error:.3g} of a mean (noise alone {best.noise:.3g}) under {budget}"
        + (f"; the next best has {ranked[1].error:.3g}" if len(ranked) > 1 else "")
    )
    return Recommendation(best, tuple(ranked[1:]), reason)


def _kernels(
    n: int,
    dim: int,
    kernel: str,
    budget: Budget,
    bandwidth: float,
    bounds: Any,
    common: dict[str, Any],
) -> list[Candidate]:
    base = {"kernel": kernel, "bandwidth": bandwidth, **common}
    found = [
        _candidate(
            PrivateKDE,
            dim,
            {**base, "method": "features", "num_features": m},
            budget,
            n,
            1 / (2 * m),
        )
        for m in _FEATURES
    ]
    product = dim == 1 or kernel in ("gaussian", "laplacian")
    if bounds is not None and dim <= 3 and product:
        settings = {**base, "method": "grid", "bounds": bounds}
        try:
            found.append(_candidate(PrivateKDE, dim, settings, budget, n, 0.0))
        except ConfigurationError as error:
            if str(MAX_CELLS) not in str(error):
                raise
    return found


def _candidate(
    family: Callable[..., Sketch],
    dim: int,
    settings: dict[str, Any],
    budget: Budget,
    n: int,
    variance: float,
) -> Candidate:
    def build() -> Sketch:
        return family(dim, **settings)

    noise = build().predicted_sd(budget) / n
    return Candidate(build, settings, math.sqrt(noise**2 + variance), noise)
