"""T9, T10, T17: CPU time against the published scheme, the loop smoother and tinygp."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch

from benchmarks.baselines.functional_tucker_ep import FunctionalTuckerEP, Settings
from benchmarks.baselines.smoother_loop import random_pass
from benchmarks.baselines.tinygp_gp import measure_tinygp
from benchmarks.frame import Context, Line, Unavailable, cpu_time, row
from benchmarks.statespace import t10, t17
from benchmarks.tensor.adapter import fit, predict_mean, rmse
from benchmarks.tensor.data import Split, beijing
from probkit.infer import CAVI
from probkit.kernels import MaternKernel
from probkit.tensor.entries import Entries, Scaling
from probkit.tensor.likelihoods import Gaussian
from probkit.tensor.variational import TuckerVariational

_GOAL = 0.2852
"""RMSE of the authors' CP code after 60 epochs on PM2.5 fold 0"""


@row("T9", "time to accuracy on PM2.5 fold 0")
def time_to_accuracy(context: Context) -> Iterator[Line]:
    directory = context.directory("beijing_air.npz")
    total, epoch, error = _published_run(directory, context.size(60, 3))
    yield Line(
        "published", "published scheme, 60 epochs: RMSE (baseline: their code)", error, _GOAL
    )
    split = beijing(directory, "pm25", 0)
    spent, sweeps, reached = _shortest_fit(split)
    what = f"CPU s to RMSE {reached:.4f} <= {_GOAL} ({sweeps} sweeps, starts included)"
    yield Line("fit", what, spent if reached <= _GOAL else None, total)
    yield Line("sweep", "CP R = 3, fixed hyper-parameters: CPU s a sweep", _sweep(split), epoch)


def _published_run(directory: Path, epochs: int) -> tuple[float, float, float]:
    """CPU seconds of all epochs, of the median one, and the RMSE at the end."""
    split = beijing(directory, "pm25", 0, scaled=True)
    model = FunctionalTuckerEP(split.x, split.y, Settings())
    spent = [cpu_time(model.epoch) for _ in range(epochs)]
    error = rmse(model.predict(split.x_test), split.y_test)
    return sum(spent), statistics.median(spent), error


def _shortest_fit(split: Split) -> tuple[float, int, float]:
    """The shortest complete fit, multi-start included, that reaches the goal: time, sweeps, RMSE.

    Each candidate is a fit from scratch, so that looking at the test error costs and gives nothing;
    two starts take 16 sweeps, the least that is tried.
    """
    error = float("inf")
    for sweeps in (16, 20, 24, 28, 32, 40, 48, 64):
        start = time.process_time()
        model = fit(split.x, split.y, rank=3, num_starts=2, engine=CAVI(max_sweeps=sweeps))
        spent = time.process_time() - start
        error = rmse(predict_mean(model, split.x_test), split.y_test)
        if error <= _GOAL:
            break
    return spent, sweeps, error


def _sweep(split: Split) -> float:
    def kernel(mode: int, rank: int) -> MaternKernel:
        kernel = MaternKernel(0.5, batch_shape=torch.Size([rank]))
        kernel.lengthscale = 0.05
        return kernel

    columns = [Scaling.of(column).apply(column) for column in split.x.T]
    entries = Entries.from_columns(columns, split.y)
    model = TuckerVariational(entries, Gaussian(), "cp", kernel)
    state = model.initial((3, 3, 3), torch.Generator().manual_seed(0))
    spent = []
    for _ in range(12):
        start = time.process_time()
        state, _ = model.sweep(state, learn=False)
        spent.append(time.process_time() - start)
    return statistics.median(spent[2:])


@row("T10", "smoother pass")
def smoother(context: Context) -> Iterator[Line]:
    seconds, growth = t10()
    loop = cpu_time(random_pass(4000, 3), repeats=2)
    yield Line("smoother", "smoother pass, D = 4000, R = 3: CPU s", seconds, loop)
    yield Line("growth", "time at D = 1e5 over time at 1e4", growth)


@row("T17", "state-space layer against tinygp")
def state_space_peer(context: Context) -> Iterator[Line]:
    if find_spec("tinygp") is None:
        raise Unavailable("needs the bench extra: pip install -e '.[bench]'")
    ours = t17()
    peer = measure_tinygp(100_000)
    name = "Matern-3/2, 1e5 points:"
    seconds = ours["value_and_gradient_seconds"]
    yield Line("gradient", f"{name} log-lik + gradient, CPU s", seconds, peer["gradient"])
    seconds = ours["smoothed_seconds"]
    yield Line("smooth", f"{name} smoothed mean and variance, CPU s", seconds, peer["smooth"])
    longest = max(value for key, value in peer.items() if key.endswith("compile"))
    yield Line("compile", f"{name} compilation, CPU s (ours: none)", 0.0, longest)
    error = max(value for key, value in ours.items() if key.endswith("error"))
    yield Line("error", f"{name} error against a sequential filter", error)
