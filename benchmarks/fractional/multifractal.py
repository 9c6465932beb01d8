"""R17: a Hurst index that changes in time, against the truth and against sliding windows."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.frame import Context, Line, row
from probkit.errors import FitWarning
from probkit.fractional import HurstModel, TimeVaryingHurst
from probkit.statespace.multifractal import MultifractionalBM
from probkit.statespace.multifractal_law import hurst_points, sample_multifractional

F64 = torch.float64
WINDOWS = 10


def rising(t: Tensor) -> Tensor:
    """H(t) on [0, 1]."""
    return 0.3 + 0.4 * t


@row("R17", "H(t) = .3 + .4 t, 4000 points, five seeds")
def changing(context: Context) -> Iterator[Line]:
    size, seeds = context.size(4000, 300), range(context.size(5, 1))
    times = torch.arange(1, size + 1, dtype=F64) / size
    for definition, key in (("increment", "increment"), ("level", "level")):
        process = MultifractionalBM(rising, definition=definition, num_steps=size, dt=1 / size)
        paths = [process.sample(times, 1, seed=seed)[0] for seed in seeds]
        errors, covered, seconds = _scores(paths, times, definition, "varying")
        what = f"definition {definition}: mean absolute error on [.1, .9]"
        windows = _mean([_sliding(y, times) for y in paths])
        yield Line(key, f"{what} (baseline: ten windows)", _mean(errors), windows)
        yield Line(f"{key}_worst", f"{what}, worst seed", max(errors))
        yield Line(f"{key}_cover", "share of the curve inside its 90 % band", _mean(covered))
        yield Line(f"{key}_seconds", "CPU s a fit", _mean(seconds))
    errors, covered, _ = _scores(paths[:1], times, "level", "constant")
    yield Line("constant", "level, scale known to be constant: one seed", _mean(errors))
    small = context.size(1500, 200)
    times = torch.arange(1, small + 1, dtype=F64) / small
    hurst = rising(hurst_points(times, "increment"))
    exact = [sample_multifractional(hurst, times, 1, seed=seed)[0] for seed in seeds]
    errors, covered, _ = _scores(exact, times, "increment", "varying")
    yield Line("exact", f"{small} points drawn from the exact law: error", _mean(errors))
    yield Line("exact_cover", "share of the curve inside its 90 % band", _mean(covered))


def _scores(
    paths: list[Tensor], times: Tensor, definition: str, scale: str
) -> tuple[list[float], list[float], list[float]]:
    errors, covered, seconds = [], [], []
    for y in paths:
        start = time.process_time()
        model = TimeVaryingHurst("levels", definition=definition, noise=False, scale=scale)
        model.fit(y, times)
        seconds.append(time.process_time() - start)
        at = torch.linspace(0.1, 0.9, 81, dtype=F64)
        found, truth = model.predict(at), rising(at)
        errors.append(float((found["mean"] - truth).abs().mean()))
        low, high = found["quantiles"]
        covered.append(float(((low <= truth) & (truth <= high)).double().mean()))
    return errors, covered, seconds


def _sliding(y: Tensor, times: Tensor) -> float:
    """Mean absolute error of one stationary fit a window, constant in it."""
    found = torch.zeros_like(times)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)  # a window's H may be at the end of its range
        for part in torch.arange(len(times)).chunk(WINDOWS):
            model = HurstModel("levels", noise=False).fit(y[part], times[part])
            found[part] = float(model.result_.posterior.mean()["hurst"])
    inside = (times >= 0.1) & (times <= 0.9)
    return float((found - rising(times)).abs()[inside].mean())


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
