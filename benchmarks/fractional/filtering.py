"""R6 and R8: the filter's log-likelihood against dense ones, and the time it takes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.fractional.dense import toeplitz
from benchmarks.frame import Context, Line, row
from probkit.fractional import series_log_likelihood
from probkit.fractional.batch_filter import filter_batch
from probkit.fractional.series import prepare_series
from probkit.fractional.system import fractional_system
from probkit.statespace.fractional import MarkovApproxFBM
from probkit.statespace.fractional_noise import fgn_autocovariance, sample_fgn

F64 = torch.float64
NOISE = 0.5


def _dense(y: Tensor, covariance: Tensor) -> float:
    noisy = covariance + NOISE * torch.eye(len(y), dtype=F64)
    law = torch.distributions.MultivariateNormal(torch.zeros_like(y), noisy)
    return float(law.log_prob(y))


@row("R6", "log-likelihood of increments with noise against dense Cholesky, N = 500")
def likelihood(context: Context) -> Iterator[Line]:
    size = context.size(500, 100)
    same, exact = 0.0, {}
    for hurst in (0.1, 0.3, 0.5, 0.7, 0.9):
        noise = torch.randn(size, generator=torch.Generator().manual_seed(1), dtype=F64)
        y = sample_fgn(hurst, size, 1, seed=0)[0] + math.sqrt(NOISE) * noise
        series = prepare_series(y, None, "increments")
        parameters = [torch.tensor(v, dtype=F64) for v in (hurst, 0.0, math.log(NOISE))]
        found = float(series_log_likelihood(series, *parameters, None))
        process = MarkovApproxFBM(hurst, num_steps=series.span)
        same = max(same, abs(found - _dense(y, toeplitz(process.increment_covariance(size)))))
        exact[hurst] = abs(found - _dense(y, toeplitz(fgn_autocovariance(hurst, size))))
    yield Line("same", "largest difference, the same covariance", same)
    worst = max(gap for hurst, gap in exact.items() if hurst < 0.9)
    yield Line("exact", "largest difference from exact fBM, H = .1 ... .7, nats", worst)
    yield Line("long", "difference from exact fBM, H = .9, nats", exact[0.9])


@row("R8", "time of the filter")
def speed(context: Context) -> Iterator[Line]:
    count, size, grid = 100, context.size(1000, 100), 49
    y = sample_fgn(0.3, size, count, seed=0)
    hurst = torch.linspace(0.05, 0.95, grid, dtype=F64)

    def batch(values: Tensor) -> float:
        series = prepare_series(values, None, "increments")
        zero = torch.zeros(grid, dtype=F64)
        return _least(lambda: filter_batch(fractional_system(hurst, zero, None, size), series))

    def dense() -> None:
        for h in hurst.tolist():
            root = torch.linalg.cholesky(toeplitz(fgn_autocovariance(h, size)))
            torch.linalg.solve_triangular(root, y.mT, upper=False)

    ours = batch(y)
    yield Line("batch", "100 series x 49 H x 1000 points, CPU s / dense", ours, _least(dense))
    long = batch(sample_fgn(0.3, 10 * size, count, seed=0))
    yield Line("growth", "ten times the points, time over time", long / ours)
    for points in (400, 2000):
        path = sample_fgn(0.3, context.size(points, 50), 1, seed=0)[0].cumsum(0)
        series = prepare_series(path, None, "levels")
        start = (0.3, 0.0, -1.0, -4.0)
        given = [torch.tensor(v, dtype=F64, requires_grad=True) for v in start]
        seconds = _least(lambda s=series, p=given: _score(s, p), 15)
        what = f"log-likelihood and score of four parameters, N = {points}, ms"
        yield Line(f"score_{points}", what, 1e3 * seconds)


def _score(series: object, given: list[Tensor]) -> None:
    torch.autograd.grad(series_log_likelihood(series, *given), given)


def _least(job: Callable[[], object], repeats: int = 2) -> float:
    best = math.inf
    for _ in range(repeats):
        start = time.process_time()
        job()
        best = min(best, time.process_time() - start)
    return best
