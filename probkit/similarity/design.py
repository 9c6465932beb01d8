"""What every private data structure of this package has in common.

A *design* is public: it fixes how a record becomes integers, how far one record can move their sum,
and how noisy sums answer queries. All designs are linear: the private state is a sum over records
of int64 contributions, so states of parts add up to the state of the whole, in any order, bit for
bit. A record's contribution is computed in integers from its quantised coordinates (elementwise
IEEE operations, and matrix products of integers below 2^53), so that it does not depend on the
records next to it, on the machine or on the number of threads. Privacy rests on that: with
ordinary floating-point features a neighbour could change the last bits of *other* rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from probkit.privacy.budget import Relation
from probkit.privacy.mechanism import Blocks, Noise

__all__ = ["Answer", "Decoder", "Design", "design_from_spec", "first_difference", "quantise"]


@dataclass(frozen=True)
class Answer:
    """Answers to queries, with what is known about their errors.

    Attributes:
        value: (Q,) or (Q, C) answers.
        sd: standard deviation of the answer's error as far as it is known: the noise and, for
            random features, their sampling error too; the same shape.
        noise_sd: the part that is due to the privacy noise alone.
        extrapolated: (Q,) queries outside the domain, answered by extension; None if none can be.
    """

    value: Tensor
    sd: Tensor
    noise_sd: Tensor
    extrapolated: Tensor | None = None

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Central Gaussian interval of the given level.

        Example:
            >>> one = torch.ones(1)
            >>> low, high = Answer(one, one, one).interval(0.95)
            >>> round(float(high), 2)
            2.96
        """
        half = torch.special.ndtri(torch.tensor(0.5 + level / 2, dtype=torch.float64))
        reach = half.to(self.sd.dtype) * self.sd
        return self.value - reach, self.value + reach


class Decoder(ABC):
    """A released statistic made ready for queries."""

    num_records: float
    """n, or its released estimate"""
    count_variance: float = 0.0
    """variance of that estimate; 0 where n is public"""

    @abstractmethod
    def query(self, points: Tensor, **options: Any) -> Answer:
        """Sums of the similarity over all records, at points (Q, d)."""


class Design(ABC):
    """The public part of a data structure; see the module's text.

    Attributes:
        kind: name in files.
        dim: number of coordinates d of a record.
        state_size: length of the int64 state.
        largest: bound on a contribution's coordinates, to keep sums below 2^62.
        normalised: answers are means over the records by default, not sums.
    """

    kind: ClassVar[str]
    normalised: ClassVar[bool] = False
    num_classes: int = 0
    dim: int
    state_size: int
    largest: int

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """Public parameters, JSON: enough to build the design again."""

    def tensors(self) -> dict[str, Tensor]:
        """Public tensors that the parameters do not determine."""
        return {}

    @abstractmethod
    def contributions(self, records: Tensor, labels: Tensor | None) -> Tensor:
        """Sum of the contributions of records (B, d), int64 (state_size,)."""

    def statistic(self, state: Tensor, count: int, relation: Relation) -> Tensor:
        """The integers that get noise, flat: the state, after the count where that is private."""
        if relation == "replace":
            return state.reshape(-1)
        return torch.cat([torch.tensor([count], dtype=torch.int64), state.reshape(-1)])

    @abstractmethod
    def blocks(self, relation: Relation, rows: int) -> Blocks:
        """Bounds on the change of ``statistic`` when ``rows`` rows change together."""

    @abstractmethod
    def decoder(self, estimate: Tensor, variance: Tensor, count: int | None) -> Decoder:
        """Make a released statistic ready: its estimate and noise variance, and n if public."""

    @abstractmethod
    def predicted_sd(self, variance: Tensor, count: int | None) -> float:
        """Root mean square error by noise of a typical sum, before anything is released."""

    def advice(self, noise: Noise, count: int) -> str | None:
        """What would answer better than this design with this noise, if something would."""
        return None

    @abstractmethod
    def scale_of_answers(self) -> float:
        """Largest similarity of one record and one query: errors near n times this are useless."""


def quantise(records: Tensor, quantum: float, limit: int) -> Tensor:
    """Coordinates in whole quanta, clipped to [-limit, limit], as float64 integers."""
    scaled = records.to(torch.float64) * (1.0 / quantum)
    return torch.floor(scaled + 0.5).clamp(-limit, limit)


def design_from_spec(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Design:
    """Build a design from what ``spec`` and ``tensors`` returned.

    Raises:
        KeyError, TypeError, ValueError: not such a description.
    """
    from probkit.similarity.class_features import ClassFeatures
    from probkit.similarity.exponential_sums import ExponentialSumKDE
    from probkit.similarity.feature_kde import FeatureKDE
    from probkit.similarity.grid_kde import GridKDE
    from probkit.similarity.halfspaces import Halfspaces
    from probkit.similarity.moments import Moments
    from probkit.similarity.spectral import SpectralDistance
    from probkit.similarity.trees import DyadicTrees
    from probkit.similarity.weight_space import WeightSpace

    known: tuple[type[Any], ...] = (
        ClassFeatures,
        DyadicTrees,
        ExponentialSumKDE,
        FeatureKDE,
        GridKDE,
        Halfspaces,
        Moments,
        SpectralDistance,
        WeightSpace,
    )
    settings = dict(spec)
    kind = settings.pop("kind")
    for design in known:
        if design.kind == kind:
            return design.from_spec(settings, tensors)
    raise ValueError(f"unknown design {kind!r}")


def first_difference(mine: Any, theirs: Any, field: str = "") -> tuple[str, Any, Any]:
    """Name and both values of the first public choice that differs, in nested designs too.

    Example:
        >>> first_difference({"features": {"seed": 1}}, {"features": {"seed": 2}})
        ('seed', 1, 2)
    """
    if isinstance(mine, dict) and isinstance(theirs, dict):
        name = next(k for k in {**mine, **theirs} if mine.get(k) != theirs.get(k))
        return first_difference(mine.get(name), theirs.get(name), name)
    if isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs):
        for one, other in zip(mine, theirs, strict=True):
            if one != other and isinstance(one, dict):
                return first_difference(one, other, field)
    return field, mine, theirs
