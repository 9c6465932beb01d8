"""B1: every kind of bad input is refused (or warned of) at the door with a full message."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.frame import Context, Line, row
from probkit.infer import CAVI
from probkit.tensor import FunctionalTucker

_LIMIT = 1.0
"""CPU seconds within which an error must come: before any sweep of the 4 000 entries"""


class Case(NamedTuple):
    name: str
    call: Callable[[], Any]
    kind: str
    """"error" or "warning" """
    words: tuple[str, ...]
    """what the message must name"""


@row("B1", "bad input")
def bad_input(context: Context) -> Iterator[Line]:
    cases = _cases()
    failures = [reason for case in cases if (reason := _check(case))]
    share = 1 - len(failures) / len(cases)
    reason = "; ".join(failures) or None
    yield Line(
        "accepted", f"{len(cases)} bad inputs: share handled as specified", share, reason=reason
    )


def _check(case: Case) -> str | None:
    """Why the case fails, or None."""
    start = time.process_time()
    text = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            case.call()
        except (ValueError, TypeError) as error:
            if case.kind == "error":
                text = str(error)
            else:
                return f"{case.name}: refused ({error})"
    if case.kind == "warning":
        text = " ".join(str(w.message) for w in caught) or None
    if text is None:
        return f"{case.name}: no {case.kind}"
    missing = [word for word in case.words if word.lower() not in text.lower()]
    if missing:
        return f"{case.name}: {case.kind} does not name {', '.join(missing)}: {text[:120]}"
    if case.kind == "error" and time.process_time() - start > _LIMIT:
        return f"{case.name}: the error came late"
    return None


def _cases() -> list[Case]:
    rng = np.random.default_rng(0)
    x = rng.random((4000, 3))
    y = np.sin(3 * x[:, 0]) * x[:, 1] + 0.1 * rng.standard_normal(4000)

    def changed(array: np.ndarray, place: Any, value: Any) -> np.ndarray:
        copy = array.copy()
        copy[place] = value
        return copy

    def fit(x: Any = x, y: Any = y, **settings: Any) -> Any:
        settings = {"rank": 1, "likelihood": "gaussian", "num_starts": 1} | settings
        return FunctionalTucker(engine=CAVI(max_sweeps=2), **settings).fit(x, y)

    counts = rng.poisson(2.0, 4000).astype(float)
    labels = (y > 0).astype(float)
    words = np.array([["a", "b", "c"][i % 3] for i in range(4000)], dtype=object)
    return [
        Case("NaN in x", lambda: fit(changed(x, (5, 1), np.nan)), "error", ("x", "1", "5")),
        Case("inf in x", lambda: fit(changed(x, (7, 2), np.inf)), "error", ("x", "2", "7")),
        Case("all y missing", lambda: fit(y=np.full(4000, np.nan)), "error", ("y", "missing")),
        Case("no entries", lambda: fit(x[:0], y[:0]), "error", ("x",)),
        Case("inf in y", lambda: fit(y=changed(y, 3, np.inf)), "error", ("y", "3")),
        Case(
            "one distinct value", lambda: fit(changed(x, (slice(None), 1), 0.5)), "warning", ("1",)
        ),
        Case(
            "complex y",
            lambda: fit(y=torch.from_numpy(y).to(torch.complex128)),
            "error",
            ("complex",),
        ),
        Case(
            "complex x",
            lambda: fit(torch.from_numpy(x).to(torch.complex128)),
            "error",
            ("complex",),
        ),
        Case(
            "strings in x",
            lambda: fit(changed(x.astype(object), (slice(None), 0), words)),
            "error",
            ("categorical",),
        ),
        Case("x and y differ in length", lambda: fit(x, y[:-1]), "error", ("4000", "3999")),
        Case("x with one dimension", lambda: fit(x[:, 0], y), "error", ("x",)),
        Case("columns of predict", lambda: fit().predict(x[:, :2]), "error", ("2", "3")),
        Case("rank 0", lambda: fit(rank=0), "error", ("rank", "0")),
        Case("rank of the wrong length", lambda: fit(rank=(2, 2)), "error", ("rank", "3")),
        Case(
            "rank above D_k",
            lambda: fit(changed(x, (slice(None), 0), np.arange(4000) % 2), rank=3),
            "warning",
            ("rank",),
        ),
        Case("constant y", lambda: fit(y=np.ones(4000)), "warning", ("y", "constant")),
        Case(
            "negative counts",
            lambda: fit(y=changed(counts, 9, -1), likelihood="poisson"),
            "error",
            ("poisson", "9"),
        ),
        Case(
            "fractional counts",
            lambda: fit(y=changed(counts, 4, 1.5), likelihood="poisson"),
            "error",
            ("poisson", "4"),
        ),
        Case(
            "labels",
            lambda: fit(y=changed(labels, 6, 2), likelihood="bernoulli"),
            "error",
            ("bernoulli", "6"),
        ),
        Case("core too large", lambda: fit(rank=21), "error", ("8192", "cp")),
        Case(
            "unknown likelihood", lambda: fit(likelihood="gamma"), "error", ("likelihood", "gamma")
        ),
        Case("unknown structure", lambda: fit(structure="tree"), "error", ("structure", "tree")),
    ]
