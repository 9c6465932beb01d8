"""The only iteration loop of the project: init, step, stop, finish.

Everything that iterates (sweeps, stochastic gradient steps, Gibbs draws) is a function
``step(state, generator) -> (state, StepInfo)``. The loop adds what every fit needs: progress,
stopping, history, callbacks, checkpoint and resume, a guard that stops at the first non-finite
objective and keeps the last good state, and an interrupt that returns what is there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from probkit.errors import NotPositiveDefiniteError, NumericalError
from probkit.infer.callbacks import Callback
from probkit.infer.checkpoint import Checkpoint, Checkpointer
from probkit.infer.protocols import State, StepInfo
from probkit.infer.status import Status
from probkit.infer.stopping import StoppingRule

__all__ = ["LoopOutcome", "Recovery", "Step", "run_loop"]

Step = Callable[[State, torch.Generator], tuple[State, StepInfo]]


@dataclass(frozen=True)
class Recovery:
    """What to do when a step breaks down: go back to the last good state, soften it, try again.

    The generator is not turned back, so that the next attempt has other random numbers.

    Args:
        max_retries: attempts in a row before the fit ends as NON_FINITE or NOT_PSD.
        soften: from the last good state to one that is likelier to go on (smaller steps).
    """

    max_retries: int
    soften: Callable[[State], State]


@dataclass(frozen=True)
class LoopOutcome:
    """Final state, how the loop ended, the history and the number of completed steps.

    ``generator_state`` belongs to ``state``: with it the loop goes on as if never stopped.
    """

    state: State
    status: Status
    history: dict[str, list[float]]
    num_steps: int
    generator_state: torch.Tensor
    detail: str = ""

    @property
    def checkpoint(self) -> Checkpoint:
        """Where to go on from."""
        return Checkpoint(self.state, self.generator_state, self.num_steps, self.history)


def run_loop(
    step: Step,
    initial: Callable[[torch.Generator], State],
    *,
    max_steps: int,
    generator: torch.Generator,
    stopping: StoppingRule | None = None,
    callbacks: Sequence[Callback] = (),
    checkpointer: Checkpointer | None = None,
    resume: bool = False,
    start: Checkpoint | None = None,
    recovery: Recovery | None = None,
) -> LoopOutcome:
    """Iterate ``step`` from ``initial(generator)``, or from a checkpoint if ``resume``.

    Args:
        step: one step; must return a new state and leave the old one intact. A call may make
            several steps (``StepInfo.objectives``); it must not go beyond ``max_steps``.
        max_steps: total number of steps, those before a resume included.
        generator: all randomness; its state is part of the checkpoint.
        stopping: rule on the history; the model's ``converged`` flag stops as well.
        checkpointer: where and how often to save.
        resume: start from the checkpoint on disk if there is one.
        start: go on from here instead (the ``checkpoint`` of an earlier outcome).
        recovery: retry steps that break down; the history counts them in ``retries``.

    Example:
        >>> def halve(state, generator):
        ...     x = state["x"] / 2
        ...     return {"x": x}, StepInfo(objective=-float(x), converged=bool(x < 0.2))
        >>> start = lambda generator: {"x": torch.tensor(1.0)}
        >>> outcome = run_loop(halve, start, max_steps=9, generator=torch.Generator())
        >>> outcome.status, outcome.num_steps
        (<Status.CONVERGED: 'converged'>, 3)
    """
    found = start
    if found is None and checkpointer is not None and resume:
        found = checkpointer.read()
    if found is None:
        state, done, history = initial(generator), 0, _empty_history()
    else:
        state, done = found.state, found.step
        history = {name: list(column) for name, column in found.history.items()}
        found.restore(generator)
    for callback in callbacks:
        callback.start(max_steps, done)
    ended = _stop(history, stopping)
    status, detail = ended or Status.MAX_STEPS, ""
    before, clock = _elapsed(history), time.process_time()
    good = generator.get_state()
    while ended is None and done < max_steps:
        try:
            tried = _attempt(step, state, generator, done, recovery)
            if tried.failure is not None:
                status, detail = tried.failure
                break
            proposal, info = tried.state, tried.info
            _record(history, info, before + time.process_time() - clock)
            before_call, done = done, done + max(len(info.objectives), 1)
            state, good = proposal, generator.get_state()
            for callback in callbacks:
                callback.step(done, state, info)
            ended = _stop(history, stopping)
            status = ended or status
            due = checkpointer is not None and done // checkpointer.every > (
                before_call // checkpointer.every
            )
            if checkpointer is not None and due:
                checkpointer.write(Checkpoint(state, good, done, history))
        except KeyboardInterrupt:
            status = Status.INTERRUPTED
            break
    # an interrupt while a step was recorded may leave a row too many in some columns
    history = {name: column[:done] for name, column in history.items()}
    if checkpointer is not None:
        checkpointer.write(Checkpoint(state, good, done, history))
    for callback in callbacks:
        callback.finish(status)
    return LoopOutcome(state, status, history, done, good, detail)


class _Attempt(NamedTuple):
    """A step's outcome, or how its last attempt failed."""

    state: State
    info: StepInfo
    failure: tuple[Status, str] | None = None


def _attempt(
    step: Step, state: State, generator: torch.Generator, done: int, recovery: Recovery | None
) -> _Attempt:
    """One step, repeated from a softened state as long as it breaks down and retries are left."""
    retries = 0
    while True:
        try:
            proposal, info = step(state, generator)
        except (NotPositiveDefiniteError, torch.linalg.LinAlgError) as error:
            failure = Status.NOT_PSD, f"step {done}: {error}"
        except NumericalError as error:
            failure = Status.NON_FINITE, f"step {done}: {error}"
        else:
            if math.isfinite(info.objective):
                if retries:
                    info = replace(info, metrics={**info.metrics, "retries": float(retries)})
                return _Attempt(proposal, info)
            failure = Status.NON_FINITE, f"objective {info.objective} at step {done}"
        if recovery is None or retries >= recovery.max_retries:
            return _Attempt(state, StepInfo(objective=math.nan), failure)
        retries += 1
        state = recovery.soften(state)


def _stop(history: dict[str, list[float]], stopping: StoppingRule | None) -> Status | None:
    """Whether the history so far ends the fit; a resumed fit that had ended does not go on."""
    if not history["objective"]:
        return None
    if history["converged"][-1]:
        return Status.CONVERGED
    return stopping(history) if stopping is not None else None


def _empty_history() -> dict[str, list[float]]:
    return {"objective": [], "segment": [], "converged": [], "seconds": []}


def _elapsed(history: dict[str, list[float]]) -> float:
    return history["seconds"][-1] if history["seconds"] else 0.0


def _record(history: dict[str, list[float]], info: StepInfo, seconds: float) -> None:
    """Append a call's steps; a metric that appears late or is absent is padded with NaN."""
    length = len(history["objective"])
    objectives = list(info.objectives) or [info.objective]
    row = {
        "segment": float(info.segment),
        "converged": float(info.converged),
        "seconds": seconds,
        **info.metrics,
    }
    for name in row.keys() | history.keys() - {"objective"}:
        column = history.setdefault(name, [math.nan] * length)
        column.extend([row.get(name, math.nan)] * len(objectives))
    history["objective"].extend(objectives)
