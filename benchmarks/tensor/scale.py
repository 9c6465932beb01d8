"""T11: time and memory as the number of entries grows; each fit in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.frame import Context, Line, row
from benchmarks.isolate import run_job

_JOB = "benchmarks.tensor.scale_job"


@row("T11", "scaling in the number of entries")
def scaling(context: Context) -> Iterator[Line]:
    small, large = context.size(100_000, 10_000), context.size(1_000_000, 100_000)
    first, second = (run_job(_JOB, "sweep", size) for size in (small, large))
    yield Line("growth", "sweep at N = 1e6 over 1e5 (CP, R = 3)", second["sweep"] / first["sweep"])
    yield Line("sweep", "sweep at N = 1e6 (baseline: 1e5), CPU s", second["sweep"], first["sweep"])
    yield Line("memory", "peak memory growth of sweeps at N = 1e6, GiB", second["growth"])
    tucker = run_job(_JOB, "tucker", context.size(13_572, 2_000))
    yield Line("tucker", "Tucker R = 7, N = 13 572: peak memory, GiB", tucker["peak"], 12.8)
    yield Line("tucker_sweep", "Tucker R = 7, N = 13 572: CPU s a sweep", tucker["sweep"])
    huge = run_job(_JOB, "fit", context.size(10_000_000, 100_000))
    yield Line("large", "fit of 1e7 entries (CP, R = 3): peak memory, GiB", huge["peak"])
    yield Line("large_time", "fit of 1e7 entries: CPU s", huge["seconds"])
    yield Line("large_error", "fit of 1e7 entries: RMSE of f over sd of f", huge["error"])
