"""Stopping rules: pure functions of the history, so that a resumed fit stops where it would have.

A rule returns the status to stop with, or None to go on. Histories hold one list a quantity; a
rule looks at the current segment only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from probkit.infer.status import Status

__all__ = ["ImprovementPatience", "RelativeChange", "StoppingRule", "current_segment"]

History = Mapping[str, Sequence[float]]


class StoppingRule(Protocol):
    """Decides after each step whether to stop."""

    def __call__(self, history: History) -> Status | None: ...


def current_segment(history: History) -> list[float]:
    """Objectives since the last change of segment.

    Example:
        >>> current_segment({"objective": [1.0, 2.0, 0.5], "segment": [0, 0, 1]})
        [0.5]
    """
    objective, segment = history["objective"], history["segment"]
    start = len(segment)
    while start > 0 and segment[start - 1] == segment[-1]:
        start -= 1
    return list(objective[start:])


@dataclass(frozen=True)
class RelativeChange:
    """Converged when the objective changed by less than ``tolerance * |objective|``, repeatedly.

    Example:
        >>> rule = RelativeChange(tolerance=1e-3, patience=2)
        >>> rule({"objective": [-5.0, -1.0, -1.0, -1.0], "segment": [0, 0, 0, 0]})
        <Status.CONVERGED: 'converged'>
    """

    tolerance: float
    patience: int = 2

    def __call__(self, history: History) -> Status | None:
        values = current_segment(history)
        if len(values) <= self.patience:
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
        values = current_segment(history)
        if len(values) % self.window or len(values) < self.window * (self.patience + 1):
            return None
        starts = range(0, len(values), self.window)
        means = [sum(values[i : i + self.window]) / self.window for i in starts]
        last = values[-self.window :]
        variance = sum((v - means[-1]) ** 2 for v in last) / max(self.window - 1, 1)
        margin = self.tolerance * (variance / self.window) ** 0.5
        best_before = max(means[: -self.patience])
        recent = max(means[-self.patience :])
        return Status.CONVERGED if recent <= best_before + margin else None
