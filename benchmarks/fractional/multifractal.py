"""R17: a Hurst index that rises in time, found by the exact filter and by windows."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.frame import Context, Line, cpu_seconds, row
from probkit.fractional import HurstModel, MultifractionalBM, TimeVaryingHurst
from probkit.statespace.multifractal_law import hurst_points, sample_multifractional

F64 = torch.float64
SEEDS, SEEDS_LEVEL, WINDOWS = 5, 2, 10
BAND = (0.05, 0.95)


@row("R17", "Hurst index .3 + .4 t of one path, N = 4000, no noise")
def rising(context: Context) -> Iterator[Line]:
    size, seeds = context.size(4000, 400), context.size(SEEDS, 1)
    paths = {seed: _path("increment", size, seed) for seed in range(seeds)}
    error, cover, seconds = _fits(paths, "increment", "varying")
    windows = sum(_windows(path) for path in paths.values()) / seeds
    name = f"increment definition, {seeds} paths"
    yield Line("increment", f"{name}: mean absolute error / {WINDOWS} windows", error, windows)
    yield Line("cover", f"{name}: coverage of the 90 % band", cover)
    yield Line("seconds", f"{name}: CPU seconds a fit", seconds)
    error, cover, _ = _fits(paths, "increment", "constant")
    yield Line("constant", f'{name}, scale="constant": mean absolute error', error)
    yield Line("constant_cover", f'{name}, scale="constant": coverage', cover)
    half = size // 2
    exact = {seed: _exact_path("increment", half, seed) for seed in range(seeds)}
    error, cover, _ = _fits(exact, "increment", "varying")
    name = f"increment definition, {seeds} paths of the exact law, N = {half}"
    yield Line("exact", f"{name}: mean absolute error", error)
    yield Line("exact_cover", f"{name}: coverage", cover)
    count = min(seeds, SEEDS_LEVEL)
    paths = {seed: _path("level", size, seed) for seed in range(count)}
    error, cover, seconds = _fits(paths, "level", "varying")
    name = f"level definition, {count} paths"
    yield Line("level", f"{name}: mean absolute error", error)
    yield Line("level_cover", f"{name}: coverage", cover)
    yield Line("level_seconds", f"{name}: CPU seconds a fit", seconds)


def _truth(times: Tensor) -> Tensor:
    return 0.3 + 0.4 * times


def _times(size: int) -> Tensor:
    return torch.arange(1, size + 1, dtype=F64) / size


def _path(definition: str, size: int, seed: int) -> Tensor:
    process = MultifractionalBM(_truth, definition=definition, num_steps=size, dt=1 / size)
    return process.sample(_times(size), 1, seed=seed)[0]


def _exact_path(definition: str, size: int, seed: int) -> Tensor:
    times = _times(size)
    hurst = _truth(hurst_points(times, definition))
    return sample_multifractional(hurst, times, 1, definition=definition, seed=seed)[0]


def _fits(paths: dict[int, Tensor], definition: str, scale: str) -> tuple[float, float, float]:
    """Mean absolute error and coverage on [.1, .9], and CPU seconds a fit; means over paths."""
    errors, covers, seconds = [], [], []
    for seed, path in paths.items():
        times = torch.nn.functional.pad(_times(len(path)), (1, 0))  # both begin at 0
        start = cpu_seconds()
        model = TimeVaryingHurst(
            "levels", definition=definition, noise=False, scale=scale, seed=seed
        ).fit(torch.nn.functional.pad(path, (1, 0)), times)
        seconds.append(cpu_seconds() - start)
        points = _inside()
        found, truth = model.predict(points, quantiles=BAND), _truth(points)
        low, high = found["quantiles"]
        errors.append(float((found["mean"] - truth).abs().mean()))
        covers.append(float(((low <= truth) & (truth <= high)).double().mean()))
    number = len(paths)
    return sum(errors) / number, sum(covers) / number, sum(seconds) / number


def _inside() -> Tensor:
    return torch.linspace(0.1, 0.9, 81, dtype=F64)


def _windows(path: Tensor) -> float:
    """The same error of posterior means of windows, linear between their centres."""
    from scipy.interpolate import interp1d

    steps = path.diff(prepend=path.new_zeros(1)).reshape(WINDOWS, -1)
    model = HurstModel("increments", noise=False).fit(steps)
    means = model.result_.posterior.mean()["hurst"]
    centres = (torch.arange(WINDOWS, dtype=F64) + 0.5) / WINDOWS
    points = _inside()
    found = torch.as_tensor(interp1d(centres.numpy(), means.numpy())(points.numpy()))
    return float((found - _truth(points)).abs().mean())
