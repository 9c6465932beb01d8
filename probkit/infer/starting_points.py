"""The best of several starting points of an optimisation, by a short run from each."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from probkit.errors import NumericalError
from probkit.infer.loop import Step
from probkit.infer.protocols import State

__all__ = ["best_start"]

_MOMENTS = ("first.", "second.")


def best_start(
    step: Step,
    initial: State,
    another: Callable[[], State],
    num_starts: int,
    length: int,
    generator: torch.Generator,
) -> State:
    """A first state of :class:`.elbo.ElboProgram` with the parameters of the best short run.

    Args:
        step: one step, or several, from a state.
        initial: the first start's state; also what the best one's counters begin with.
        another: makes the other starts' first states.
        num_starts: how many there are; one is taken as it is.
        length: steps from each; starts compare by the average of the second half.
        generator: of the steps.
    """
    if num_starts == 1:
        return initial
    best, best_value = initial, -math.inf
    for number in range(num_starts):
        state = another() if number else initial
        values: list[float] = []
        try:
            while len(values) < length:
                state, info = step(state, generator)
                values.extend(info.objectives or [info.objective])
        except NumericalError:
            continue  # a start that breaks down is not the best one
        tail = values[len(values) // 2 :]
        value = sum(tail) / len(tail)
        if value > best_value:
            best, best_value = state, value
    found = {k: v for k, v in best.items() if k.startswith("param.")}
    fresh = {k.replace("param.", "best.", 1): v for k, v in found.items()}
    moments = {k: torch.zeros_like(v) for k, v in initial.items() if k.startswith(_MOMENTS)}
    return {**initial, **found, **fresh, **moments}
