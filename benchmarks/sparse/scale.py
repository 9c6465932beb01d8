"""S9 to S11, S18: time, memory, four factors, batches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import fmean

import torch

from benchmarks.frame import Context, Line, cpu_time, row
from benchmarks.isolate import run_job
from benchmarks.sparse import dense
from probkit.sparse import KroneckerSBL, simulate_recovery

_JOB = "benchmarks.sparse.scale_job"


@row("S9", "time against the dense iteration")
def speed(context: Context) -> Iterator[Line]:
    sizes = {"num_atoms": context.size(15, 8), "num_measurements": (8, 12, 15)}
    p = simulate_recovery(structure="rank1", snr_db=25.0, seed=1, **sizes)
    default, single = KroneckerSBL(noise=p.noise), KroneckerSBL(noise=p.noise, starts=("flat",))
    full = cpu_time(lambda: default.recover(p.y, p.dictionaries), 3)
    one = cpu_time(lambda: single.recover(p.y, p.dictionaries), 3)
    limit = max(60 * full, 150 * one)
    _, other = dense.reference(p, "am", max_seconds=limit)
    reason = "the dense one was stopped there" if other >= limit else None
    yield Line("default", "dense AM over our default, CPU", other / full, reason=reason)
    yield Line("single", "dense AM over one climb, CPU", other / one, reason=reason)
    yield Line("seconds", "default fit (baseline: dense AM), CPU s", full, other, reason)


@row("S10", "scaling to a million atoms")
def scaling(context: Context) -> Iterator[Line]:
    small, large = (run_job(_JOB, "fit", size) for size in ("15", "30"))
    yield Line("growth", "fit of 30^3 over fit of 15^3, CPU", large["seconds"] / small["seconds"])
    huge = run_job(_JOB, "fit", "100" if not context.quick else "30")
    yield Line("seconds", "fit of 1e6 atoms, 210 000 measurements, CPU s", huge["seconds"])
    yield Line("peak", "peak memory, GB", huge["peak"])
    yield Line("accuracy", "NMSE (baseline: oracle)", huge["nmse"], huge["oracle"])
    yield Line("bytes_fit", "peak of the fit above import and data, bytes an atom", huge["bytes"])
    step = run_job(_JOB, "pass", "100" if not context.quick else "30")
    yield Line("bytes_pass", "peak of one pass, bytes an atom", step["bytes"])
    yield Line("pass", "one pass, CPU s", step["seconds"])


@row("S11", "four factors")
def four_factors(context: Context) -> Iterator[Line]:
    size = "18" if not context.quick else "8"
    found = [run_job(_JOB, "four", size, seed) for seed in range(context.size(5, 1))]
    mean = {name: fmean(f[name] for f in found) for name in found[0]}
    yield Line("accuracy", "mean NMSE (baseline: oracle)", mean["nmse"], mean["oracle"])
    what = "mean support recovery (baseline: oracle)"
    yield Line("srr", what, mean["srr"], mean["oracle_srr"])
    yield Line("seconds", "slowest fit, CPU s", max(f["seconds"] for f in found))


@row("S18", "64 users x 6 subcarriers in one call")
def batch(context: Context) -> Iterator[Line]:
    count = context.size(64 * 6, 12)
    problems = [
        simulate_recovery(
            num_atoms=8,
            num_measurements=(4, 6),
            num_nonzero=2,
            snr_db=15.0,
            is_complex=True,
            seed=seed,
        )
        for seed in range(count)
    ]
    y = torch.stack([p.y for p in problems])
    dictionaries = [torch.stack(a) for a in zip(*(p.dictionaries for p in problems), strict=True)]
    model = KroneckerSBL()
    start = time.process_time()
    whole = model.recover(y, dictionaries).mean
    together = time.process_time() - start
    start = time.process_time()
    single = torch.stack([model.recover(p.y, p.dictionaries).mean for p in problems])
    alone = time.process_time() - start
    worst = (whole - single).flatten(1).norm(dim=1) / single.flatten(1).norm(dim=1).clamp(min=1e-30)
    yield Line("error", "worst relative difference from the loop", float(worst.max()))
    yield Line("speed", "loop over batch, CPU", alone / together)
    if torch.cuda.is_available():
        device = torch.device("cuda")
        onto = [d.to(device) for d in dictionaries]
        model.recover(y.to(device), onto)
        start = time.perf_counter()
        model.recover(y.to(device), onto)
        torch.cuda.synchronize()
        yield Line("cuda", "CPU loop over CUDA batch", alone / (time.perf_counter() - start))
    else:
        yield Line("cuda", "CPU loop over CUDA batch", None, reason="no CUDA device")
