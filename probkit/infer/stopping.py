"""Stopping rules: pure functions of the history, so that a resumed fit stops where it would have.

A rule returns the status to stop with, or None to go on. Histories hold one list a quantity; a
rule looks at the current segment only.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from probkit.infer.status import Status

__all__ = [
    "FirstOf",
    "GradientNorm",
    "ImprovementPatience",
    "RelativeChange",
    "SecondsBudget",
    "SmoothedChange",
    "Stalled",
    "StoppingRule",
    "segment_start",
    "settled",
]

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


def settled(objectives: Sequence[float]) -> bool:
    """After a schedule has run its course: whether the last fifth gained nothing on the one before.

    A gain counts above two standard errors, from ten batch means of each fifth, and above a
    millionth of the objective. Fewer than 100 steps tell nothing.

    Example:
        >>> settled([-1.0 / (n + 1) ** 3 - 1.0 for n in range(200)]), settled(list(range(200)))
        (True, False)
    """
    part = len(objectives) // 50
    if part < 2:
        return False
    ends = range(len(objectives) - 20 * part, len(objectives), part)
    means = [sum(objectives[i : i + part]) / part for i in ends]
    before, last = means[:10], means[10:]
    gain = sum(last) / 10 - sum(before) / 10
    spread = sum((m - sum(half) / 10) ** 2 for half in (before, last) for m in half) / 9
    return gain <= 2 * math.sqrt(spread / 10) + 1e-6 * abs(sum(last) / 10)


@dataclass(frozen=True)
class Stalled:
    """Stops where a step reported (metric ``stalled``) that it cannot improve any further.

    Example:
        >>> Stalled()({"objective": [-1.0], "segment": [0.0], "stalled": [1.0]})
        <Status.STALLED: 'stalled'>
    """

    def __call__(self, history: History) -> Status | None:
        return Status.STALLED if history["stalled"][-1] == 1 else None


@dataclass(frozen=True)
class SmoothedChange:
    """Converged when a smoothed objective changes little: for noisy ELBOs with a relative goal.

    The objective is averaged over windows; a change between the last two averages of less than
    ``tolerance`` times their size must happen ``patience`` times in a row.

    Args:
        tolerance: relative change of the average.
        window: steps that are averaged.
        patience: comparisons in a row.

    Example:
        >>> rule = SmoothedChange(tolerance=0.1, window=2, patience=1)
        >>> values = [-9.0, -8.0, -1.0, -1.2, -1.1, -1.1]
        >>> rule({"objective": values[:4], "segment": [0.0] * 4}) is None
        True
        >>> rule({"objective": values, "segment": [0.0] * 6})
        <Status.CONVERGED: 'converged'>
    """

    tolerance: float = 1e-4
    window: int = 200
    patience: int = 2

    def __call__(self, history: History) -> Status | None:
        first = segment_start(history)
        count = (len(history["objective"]) - first) // self.window
        if history["segment"][-1] < 0 or count <= self.patience:
            return None
        values = history["objective"]
        starts = [first + i * self.window for i in range(count - self.patience - 1, count)]
        means = [sum(values[i : i + self.window]) / self.window for i in starts]
        small = all(abs(b - a) <= self.tolerance * max(abs(b), 1e-12) for a, b in pairwise(means))
        return Status.CONVERGED if small else None


@dataclass(frozen=True)
class GradientNorm:
    """Converged when the metric ``gradient_norm`` is at most ``tolerance``.

    Example:
        >>> found = {"objective": [-1.0], "segment": [0.0], "gradient_norm": [1e-9]}
        >>> GradientNorm(1e-6)(found)
        <Status.CONVERGED: 'converged'>
    """

    tolerance: float

    def __call__(self, history: History) -> Status | None:
        norm = history.get("gradient_norm")
        return Status.CONVERGED if norm and norm[-1] <= self.tolerance else None


@dataclass(frozen=True)
class SecondsBudget:
    """Out of time when the fit has used that many CPU seconds, those before a resume included.

    Example:
        >>> SecondsBudget(60)({"objective": [-1.0], "segment": [0.0], "seconds": [61.0]})
        <Status.OUT_OF_TIME: 'out_of_time'>
    """

    seconds: float

    def __call__(self, history: History) -> Status | None:
        return Status.OUT_OF_TIME if history["seconds"][-1] >= self.seconds else None


@dataclass(frozen=True)
class FirstOf:
    """The first of several rules that says to stop.

    Example:
        >>> rule = FirstOf((GradientNorm(1e-6), SecondsBudget(1)))
        >>> rule({"objective": [-1.0], "segment": [0.0], "seconds": [2.0]})
        <Status.OUT_OF_TIME: 'out_of_time'>
    """

    rules: tuple[StoppingRule, ...]

    def __call__(self, history: History) -> Status | None:
        found = (rule(history) for rule in self.rules)
        return next((status for status in found if status is not None), None)
