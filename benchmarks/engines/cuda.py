"""E8: compiled against eager SVI steps on a GPU, for two models that are large enough for one."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pyro
import torch
from pyro.infer.autoguide import AutoNormal

from benchmarks.engines.models import CASES, logistic
from benchmarks.frame import Context, Line, Unavailable, row
from probkit.infer import SVI

__all__ = ["microseconds_a_step"]

_STEPS = 200


@row("E8", "SVI steps on a GPU")
def on_cuda(context: Context) -> Iterator[Line]:
    if not torch.cuda.is_available():
        raise Unavailable("not run: no CUDA")
    rows = context.size(1_000_000, 10_000)
    x = torch.randn(rows, 200, dtype=torch.float64, device="cuda")
    w = torch.randn(200, dtype=torch.float64, device="cuda") / 14
    y = torch.bernoulli(torch.sigmoid(x @ w))
    batch = min(65_536, rows // 4)
    hierarchical = CASES["hierarchical"]
    cases = {
        "logistic": (functools.partial(logistic, batch=batch), (x, y)),
        "hierarchical": (hierarchical.model, tuple(t.cuda() for t in hierarchical.data)),
    }
    for name, (model, data) in cases.items():
        baseline = _pyro(model, data)
        for key, choice in (("", "auto"), ("_eager", "off")):
            spent, reason = microseconds_a_step(model, data, choice)
            what = f'{name}: us a step (wall), compile="{choice}" (baseline: Pyro)'
            yield Line(name + key, what, spent, baseline, reason)


def microseconds_a_step(model: Callable[..., Any], data: Any, choice: str) -> tuple[float, str]:
    """Wall time of a step of our loop, start and build excluded, and how it was run."""
    stamps: list[float] = []

    class Clock:
        def start(self, max_steps: int, done: int) -> None:
            stamps.append(time.perf_counter())

        def step(self, step: int, state: Any, info: Any) -> None: ...

        def finish(self, status: Any) -> None:
            _synchronize()
            stamps.append(time.perf_counter())

    engine = SVI(steps=_STEPS, num_diagnostic_samples=0, num_posterior_samples=1, compile=choice)
    result = engine.fit(model, data, callbacks=[Clock()])
    return (stamps[1] - stamps[0]) / _STEPS * 1e6, str(result.provenance["compile"]["reason"])


def _pyro(model: Callable[..., Any], data: Any) -> float:
    """Wall time of a step of Pyro's own SVI."""
    pyro.clear_param_store()
    svi = pyro.infer.SVI(
        model, AutoNormal(model), pyro.optim.Adam({"lr": 0.01}), pyro.infer.Trace_ELBO()
    )
    for _ in range(10):
        svi.step(*data)
    _synchronize()
    start = time.perf_counter()
    for _ in range(_STEPS):
        svi.step(*data)
    _synchronize()
    pyro.clear_param_store()
    return (time.perf_counter() - start) / _STEPS * 1e6


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
