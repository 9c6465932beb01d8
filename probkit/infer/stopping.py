"""Stopping rules: pure functions of the history, so that a resumed fit stops where it would have.

A rule returns the status to stop with, or None to go on. Histories hold one list a quantity; a
rule looks at the current segment only.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from probkit.infer.status import Status

__all__ = ["ImprovementPatience", "RelativeChange", "Stalled", "StoppingRule", "segment_start"]

History = Mapping[str, Sequence[float]]


class StoppingRule(Protocol):
    """Decides after each step whether to stop."""

    def __call__(self, history: History) -> Status | None: ...


def segment_start(history: History) -> int:
    """Index of the first step of the current segment; segments never come back.

    Example:
        >>> segment_start({"objective": [1.0, 2.0, 0.5], "segment": [0, 0, 1]})
        2
    """
    segment = history["segment"]
    return bisect_left(segment, True, key=lambda value: value == segment[-1])


@dataclass(frozen=True)
class RelativeChange:
    """Converged when the objective changed by less than ``tolerance * |objective|``, repeatedly.

    Segments with negative numbers are a model's explorations and are left to the model.

    Example:
        >>> rule = RelativeChange(tolerance=1e-3, patience=2)
        >>> rule({"objective": [-5.0, -1.0, -1.0, -1.0], "segment": [0, 0, 0, 0]})
        <Status.CONVERGED: 'converged'>
    """

    tolerance: float
    patience: int = 2

    def __call__(self, history: History) -> Status | None:
        values = history["objective"]
        if history["segment"][-1] < 0 or len(values) - segment_start(history) <= self.patience:
            return None
        recent = values[-self.patience - 1 :]
        small = all(abs(b - a) <= self.tolerance * max(abs(b), 1e-12) for a, b in pairwise(recent))
        return Status.CONVERGED if small else None


@dataclass(frozen=True)
class ImprovementPatience:
    """Converged when the average over a window stops rising for ``patience`` windows (noisy ELBO).

    The rise must exceed ``tolerance`` standard errors of a window's average to count.
    """

    window: int = 200
    patience: int = 5
    tolerance: float = 0.0

    def __call__(self, history: History) -> Status | None:
        first = segment_start(history)
        length = len(history["objective"]) - first
        if length % self.window or length < self.window * (self.patience + 1):
            return None
        values = history["objective"][first:]
        starts = range(0, len(values), self.window)
        means = [sum(values[i : i + self.window]) / self.window for i in starts]
        last = values[-self.window :]
        variance = sum((v - means[-1]) ** 2 for v in last) / max(self.window - 1, 1)
        margin = self.tolerance * (variance / self.window) ** 0.5
        best_before = max(means[: -self.patience])
        recent = max(means[-self.patience :])
        return Status.CONVERGED if recent <= best_before + margin else None


@dataclass(frozen=True)
class Stalled:
    """Stops where a step reported (metric ``stalled``) that it cannot improve any further.

    Example:
        >>> Stalled()({"objective": [-1.0], "segment": [0.0], "stalled": [1.0]})
        <Status.STALLED: 'stalled'>
    """

    def __call__(self, history: History) -> Status | None:
        return Status.STALLED if history["stalled"][-1] == 1 else None
