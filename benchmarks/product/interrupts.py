"""Fits that are stopped at random moments and resumed, as often as it takes, by two means.

``raised`` stops a fit by an exception in a callback, after a random step; ``killed`` by SIGKILL of
the process, at a random time, so that it also hits the writing of a checkpoint. The resumed fit
must end with the numbers of the uninterrupted one.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np

from benchmarks.product.small_fits import FITS, Numbers, Options

__all__ = ["Outcome", "killed", "raised"]


class Outcome(NamedTuple):
    """How many interrupts there were, how many fits were finished, and the largest difference."""

    interrupts: int
    fits: int
    difference: float


class _Stop(Exception):
    pass


class _StopAfter:
    """Raises after some calls of this attempt; counts them where it does not."""

    def __init__(self, calls: float = float("inf")) -> None:
        self.left, self.calls = calls, 0

    def start(self, max_steps: int, step: int) -> None:
        """Nothing to do."""

    def step(self, step: int, state: Any, info: Any) -> None:
        """Count, and stop when it is time."""
        self.calls += 1
        if self.calls >= self.left:
            raise _Stop

    def finish(self, status: Any) -> None:
        """Nothing to do."""


def raised(name: str, interrupts: int, random: Random) -> Outcome:
    """Stop and resume until there were ``interrupts`` stops, in as many fits as needed."""
    counter = _StopAfter()
    whole = _quietly(name, Options(callbacks=(counter,)))
    total = counter.calls

    def attempt(folder: Path) -> Numbers | None:
        stop = _StopAfter(random.randint(1, max(total - 1, 1)))
        try:
            return _quietly(name, Options(0, folder, True, (stop,)))
        except _Stop:
            return None

    return _until(attempt, interrupts, whole)


def killed(name: str, interrupts: int, random: Random) -> Outcome:
    """As ``raised``, by SIGKILL of a process of its own."""
    _quietly(name, Options())  # loads what is imported late
    start = time.monotonic()
    whole = _quietly(name, Options())
    seconds = time.monotonic() - start

    def attempt(folder: Path) -> Numbers | None:
        answer = folder / "answer.npz"
        process = _forked(name, Options(0, folder, True), answer)
        process.join(random.uniform(0.02, seconds))
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        if process.exitcode == -signal.SIGKILL:
            return None
        if process.exitcode != 0:
            raise RuntimeError(f"{name} ended with {process.exitcode} when resumed")
        return _stored(answer)

    return _until(attempt, interrupts, whole)


def _until(attempt: Callable[[Path], Numbers | None], interrupts: int, whole: Numbers) -> Outcome:
    """Attempts until enough were interrupted; every finished one is compared."""
    seen, fits, worst = 0, 0, 0.0
    while seen < interrupts or not fits:
        with tempfile.TemporaryDirectory() as folder:
            found = attempt(Path(folder))
            while found is None:
                seen += 1
                found = attempt(Path(folder))
        fits += 1
        worst = max(worst, _difference(whole, found))
    return Outcome(seen, fits, worst)


def _difference(first: Numbers, second: Numbers) -> float:
    """Largest difference; infinite where keys or shapes differ."""
    if first.keys() != second.keys():
        return float("inf")
    worst = 0.0
    for name, value in first.items():
        if value.shape != second[name].shape:
            return float("inf")
        if value.size and not np.array_equal(value, second[name], equal_nan=True):
            worst = max(worst, float(np.nanmax(np.abs(value - second[name]))))
    return worst


def _forked(name: str, options: Options, answer: Path) -> Any:
    """A child that has all modules loaded, so that a kill hits the fit and not an import."""
    process = multiprocessing.get_context("fork").Process(
        target=_store, args=(name, options, answer)
    )
    process.start()
    return process


def _store(name: str, options: Options, answer: Path) -> None:
    temporary = answer.with_name("part.npz")
    np.savez(temporary, **_quietly(name, options))
    temporary.replace(answer)


def _stored(answer: Path) -> Numbers:
    with np.load(answer) as stored:
        return {name: stored[name] for name in stored.files}


def _quietly(name: str, options: Options) -> Numbers:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few draws: the fits are small on purpose
        return FITS[name](options)
