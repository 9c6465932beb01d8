"""X2-X4: many fits in one process, and fits that are stopped at random and resumed."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.frame import Context, Line, row
from benchmarks.isolate import run_job
from benchmarks.product.small_fits import RESUMABLE


@row("X2", "1 000 fits in one process")
def many_fits(context: Context) -> Iterator[Line]:
    got = run_job("benchmarks.product.long_run_job", context.size(1000, 60), timeout=7200)
    what = f"{got['fits']} fits: growth of resident memory after warm-up"
    yield Line("growth", what, got["growth"])
    yield Line("resident", "resident memory at the end (MiB)", got["at_the_end"])
    found = got["changes"]
    what = "kinds of global state changed (19 looked at)"
    yield Line("changes", what, len(found), reason="; ".join(found) or None)
    yield Line("seconds", "CPU seconds in all", got["seconds"])


@row("X3", "stopped by an exception at a random step")
def stopped(context: Context) -> Iterator[Line]:
    yield from _lines(context, "raised")


@row("X4", "stopped by SIGKILL at a random moment")
def killed(context: Context) -> Iterator[Line]:
    yield from _lines(context, "killed")


def _lines(context: Context, how: str) -> Iterator[Line]:
    count = context.size(50, 3)
    for name in RESUMABLE:
        got = run_job("benchmarks.product.interrupts_job", name, how, count, timeout=7200)
        what = f"{name}: {got['interrupts']} interrupts in {got['fits']} fits: largest difference"
        yield Line("difference", what, got["difference"])
