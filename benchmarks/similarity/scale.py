"""D17 to D19: builds of large tables, query services, partitions on two workers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.baselines.noisy_trees import TreeL1
from benchmarks.frame import Context, Line, Unavailable, cpu_time, cpu_times, row
from benchmarks.isolate import run_job
from benchmarks.similarity.distances import uniform
from benchmarks.similarity.releases import pure, releases
from probkit.errors import DependencyError
from probkit.privacy import BudgetExceededError, PrivacyAccountant
from probkit.similarity import PrivateDistance, PrivateKDE, Sketch
from probkit.similarity.distributed import build_with_dask


@row("D17", "builds of large tables")
def large_tables(context: Context) -> Iterator[Line]:
    size = context.size(10**6, 10**4)
    for dim, cells in ((1, 4096), (64, 4096)):
        sketch = PrivateDistance(dim, bounds=(0.0, 1.0), num_cells=cells)
        part = uniform(size // 10, dim, 0)
        start = time.process_time()
        for _ in range(10):
            sketch.update(part)
        seconds = time.process_time() - start
        yield Line(f"build_{dim}", f"l1, n = 1e6, d = {dim}: build, CPU s", seconds)
        small = PrivateDistance(dim, bounds=(0.0, 1.0), num_cells=cells).update(part[: size // 100])
        y = uniform(1000, dim, 1)
        times = _query_times((sketch, small), y)
        yield Line(f"query_{dim}", f"d = {dim}: query at n = 1e6 over 1e4", times[0] / times[1])
        grown = sketch.state.numel() / small.state.numel()
        yield Line(f"state_{dim}", f"d = {dim}: state at n = 1e6 over 1e4", grown)
    part = uniform(context.size(10_000, 100), 2048, 0).float()
    sketch = PrivateDistance(2048, bounds=(0.0, 1.0))
    start = time.process_time()
    for _ in range(10):
        sketch.update(part)
    yield Line("build_2048", "l1, n = 1e5, d = 2048: build, CPU s", time.process_time() - start)
    growth = run_job("benchmarks.similarity.memory_job", context.size(100_000, 1000), 64, 4096)
    yield Line("memory", "kernel build: peak memory above the data, GB", growth["growth"])


def _query_times(sketches: Sequence[Sketch], y: Tensor) -> list[float]:
    made = [next(releases(sketch, pure(1.0), 1)) for sketch in sketches]
    return cpu_times([lambda one=one: [one.query(y) for _ in range(50)] for one in made], 9)


@row("D18", "query service")
def service(context: Context) -> Iterator[Line]:
    x = uniform(context.size(10_000, 1000), 16, 0)
    (release,) = releases(PrivateDistance(16, bounds=(0.0, 1.0)).update(x), pure(1.0), 1)
    y = uniform(context.size(100_000, 1000), 16, 1)
    release.query(y)
    ours = cpu_time(lambda: release.query(y), 3) / len(y)
    tree = TreeL1(x.numpy(), 1.0, np.random.default_rng(0))
    some = y[:2000].numpy()
    theirs = cpu_time(lambda: tree.query(some)) / len(some)
    yield Line("faster", "TreeL1 over ours, a query of 1e5", theirs / ours)
    yield Line("seconds", "1e5 queries, CPU s", ours * len(y))


def make_sketch() -> Sketch:
    return PrivateKDE(8, bandwidth=1.0, num_features=256, seed=1)


def load_part(job: tuple[int, str]) -> Tensor:
    """Records of one partition; the first worker to reach the marked one dies."""
    number, marker = job
    if number == 3 and marker:
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            pass
        else:
            os._exit(1)
    return uniform(2000, 8, number)


@row("D19", "two dask workers")
def two_workers(context: Context) -> Iterator[Line]:
    import tempfile
    from pathlib import Path

    try:
        from dask.distributed import Client, LocalCluster
    except ImportError as error:
        raise Unavailable("dask is not installed") from error
    serial = make_sketch()
    for number in range(8):
        serial.update(load_part((number, "")))
    accountant = PrivacyAccountant(epsilon=1, delta=1e-6)
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        for key, marker in (("same", ""), ("killed", str(Path(folder) / "died"))):
            try:
                jobs = [(number, marker) for number in range(8)]
                sketch = build_with_dask(make_sketch, jobs, client, load=load_part)
            except DependencyError as error:
                raise Unavailable(str(error)) from error
            same = float(torch.equal(sketch.state, serial.state) and sketch.count == serial.count)
            what = "identical to serial" + (", one worker killed" if marker else "")
            yield Line(key, what, same)
        died = float((Path(folder) / "died").exists())
        yield Line("died", "a worker did die", died)
        sketch.release(accountant)
    try:
        serial.release(accountant)
        twice = True
    except BudgetExceededError:
        twice = len(accountant.ledger) != 1
    yield Line("twice", "budget spent twice", float(twice))
