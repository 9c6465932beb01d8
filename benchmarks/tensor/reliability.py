"""F1-F7: kills, interrupts, bad objectives, saved results; each in a process of its own."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.frame import Context, Line, row
from benchmarks.isolate import kill_when, run_job

_JOB = "benchmarks.tensor.reliability_job"


@row("F1", "SIGKILL and resume")
def kill_and_resume(context: Context) -> Iterator[Line]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = run_job(_JOB, "whole", folder)
        code, _ = kill_when(
            _JOB, "interrupted", folder, file=folder / "half-way", sign=signal.SIGKILL
        )
        resumed = run_job(_JOB, "resumed", folder)
        difference = _difference(whole["predictions"], resumed["predictions"])
    what = f"killed half-way (exit {code}), resumed: largest difference in predictions"
    yield Line("difference", what, difference if code == -signal.SIGKILL else float("inf"))
    yield Line("sweeps", "sweeps done after the resumption", float(resumed["sweeps"]))


@row("F2", "Ctrl-C")
def interrupt(context: Context) -> Iterator[Line]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        code, output = kill_when(
            _JOB, "interrupted", folder, file=folder / "half-way", sign=signal.SIGINT
        )
        usable = code == 0 and '"status": "INTERRUPTED"' in output and '"finite": true' in output
    yield Line(
        "ok",
        "SIGINT: status INTERRUPTED, predictions finite",
        float(usable),
        reason=None if usable else f"exit {code}: {' '.join(output.split())[-200:]}",
    )


@row("F3", "NaN objective")
def non_finite(context: Context) -> Iterator[Line]:
    got = run_job(_JOB, "non_finite", "-")
    good = got["status"] == "NON_FINITE" and got["finite"]
    good = good and got["calls"] == got["bad_sweep"] == got["sweeps"] + 1
    reason = None if good else str(got)
    yield Line(
        "ok", "stops at the first bad step, last good state kept", float(good), reason=reason
    )


@row("F4", "save, new process, load")
def save_and_load(context: Context) -> Iterator[Line]:
    with tempfile.TemporaryDirectory() as name:
        saved = run_job(_JOB, "save", name)
        loaded = run_job(_JOB, "load", name)
    difference = _difference(saved["predictions"], loaded["predictions"])
    yield Line("difference", "predictions of the loaded result: largest difference", difference)


@row("F5", "the saved file in ArviZ")
def arviz(context: Context) -> Iterator[Line]:
    with tempfile.TemporaryDirectory() as name:
        run_job(_JOB, "save", name)
        got = run_job(_JOB, "arviz", name)
    yield Line("ok", f"opens, az.summary has {got['rows']} rows", float(got["rows"] > 0))


@row("F6", "two fits in one process")
def isolation(context: Context) -> Iterator[Line]:
    alone = run_job(_JOB, "whole", "-")
    pair = run_job(_JOB, "pair", "-")
    difference = _difference(alone["predictions"], pair["predictions"])
    yield Line("difference", "a fit after another: largest difference in predictions", difference)
    yield Line("store", "entries in Pyro's parameter store afterwards", float(pair["store"]))


@row("F7", "same seed, same numbers")
def same_seed(context: Context) -> Iterator[Line]:
    first, second = (run_job(_JOB, "whole", "-") for _ in range(2))
    difference = _difference(first["predictions"], second["predictions"])
    yield Line("difference", "two processes: largest difference in predictions", difference)


def _difference(first: list[float], second: list[float]) -> float:
    return float(np.abs(np.subtract(first, second)).max())
