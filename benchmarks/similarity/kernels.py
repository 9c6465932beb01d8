"""D8 to D11: kernel means against LSQ."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from benchmarks.baselines.lsq import LSQGaussTransform, LSQRandomFeatures
from benchmarks.frame import Context, Line, cpu_time, row
from benchmarks.isolate import run_job
from benchmarks.similarity.distances import uniform
from benchmarks.similarity.releases import approximate, pure, releases, rmse, without_noise
from probkit.similarity import KERNELS, PrivateKDE, Sketch
from probkit.similarity.spectral_laws import similarity


def mixture(size: int, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    """Ten Gaussian clusters; records, and 300 queries."""
    g = torch.Generator().manual_seed(seed)
    centers = torch.randn(10, dim, generator=g, dtype=torch.float64) / math.sqrt(dim)
    which = torch.randint(0, 10, (size + 300,), generator=g)
    noise = torch.randn(size + 300, dim, generator=g, dtype=torch.float64)
    x = centers[which] + noise * math.sqrt(0.5 / dim)
    return x[:size], x[size:]


@row("D8", "kernel mean, two coordinates, pure budget")
def plane(context: Context) -> Iterator[Line]:
    size = context.size(100_000, 2000)
    x, y = 9 * uniform(size, 2, 0), 9 * uniform(200, 2, 1)
    exact = torch.cat([similarity("gaussian", x, part).mean(-1) for part in y.split(20)])
    rng = np.random.default_rng(0)
    sketch = PrivateKDE(
        2, bandwidth=1.0, method="grid", bounds=(0.0, 9.0), relation="add_remove"
    ).update(x)
    worst, slowest = math.inf, math.inf
    for epsilon in (0.1, 1.0):
        found = list(releases(sketch, pure(epsilon), context.size(30, 3)))
        ours = rmse([r.query(y).value - exact for r in found])
        yield Line(f"rmse_{epsilon}", f"RMSE at epsilon {epsilon}, add_remove", ours)
        for order in (4, 6, 8):
            runs = []
            for _ in range(context.size(3, 1)):
                theirs = LSQGaussTransform(x.numpy(), 9, order, epsilon, rng)
                runs.append(torch.from_numpy(theirs.query(y.numpy())) - exact)
            other = rmse(runs)
            yield Line(f"fgt_{order}_{epsilon}", f"LSQ-FGT order {order}, epsilon {epsilon}", other)
            worst = min(worst, other / ours)
            seconds = cpu_time(lambda theirs=theirs: theirs.query(y.numpy()))
            found[0].query(y)
            mine = cpu_time(lambda found=found: [found[0].query(y) for _ in range(20)], 3) / 20
            slowest = min(slowest, seconds / mine)
    yield Line("better", "least LSQ-FGT error over ours", worst)
    yield Line("faster", "least LSQ-FGT query time over ours", slowest)


@row("D9", "kernel mean, 2048 coordinates")
def high_dimension(context: Context) -> Iterator[Line]:
    size, features = context.size(10_000, 500), 1000
    errors: dict[str, list[Tensor]] = {k: [] for k in ("lsq", "pure", "knorm", "zcdp")}
    builds, lsq_builds = [], []
    for seed in range(context.size(5, 1)):
        x, y = mixture(size, 2048, seed)
        exact = similarity("gaussian", x, y).mean(-1)
        rng = np.random.default_rng(seed)
        numpy_x = x.numpy()
        made: list[LSQRandomFeatures] = []
        lsq_builds.append(
            cpu_time(
                lambda numpy_x=numpy_x, rng=rng, made=made: made.append(
                    LSQRandomFeatures(numpy_x, 2 * features, 0.5, rng)
                )
            )
        )
        for _ in range(context.size(25, 2)):  # its noise again, on the same features
            made[0].redraw(rng)
            errors["lsq"].append(torch.from_numpy(made[0].query(y.numpy())) - exact)
        sketch = PrivateKDE(
            2048,
            bandwidth=1.0,
            num_features=features,
            projection="structured",
            seed=seed,
            relation="add_remove",
        )
        builds.append(cpu_time(lambda sketch=sketch, x=x: sketch.update(x)))
        for name, budget in (("pure", pure(0.5)), ("zcdp", approximate(0.5, 1e-6))):
            found = releases(sketch, budget, context.size(25, 2))
            errors[name] += [r.query(y).value - exact for r in found]
        found = releases(sketch, pure(0.5), context.size(25, 2), continuous=True)
        errors["knorm"] += [r.query(y).value - exact for r in found]
    base = rmse(errors["lsq"])
    yield Line("lsq", "RMSE of LSQ-RFF, 2000 numbers, epsilon .5", base)
    yield Line("pure", "pure, discrete noise, over LSQ", rmse(errors["pure"]) / base)
    yield Line("knorm", "pure, K-norm noise, over LSQ", rmse(errors["knorm"]) / base)
    yield Line("zcdp", "(0.5, 1e-6) over LSQ", rmse(errors["zcdp"]) / base)
    yield Line("build", "build time of LSQ over ours", sum(lsq_builds) / sum(builds))
    yield Line("build_seconds", "build, CPU s (baseline LSQ)", builds[0], lsq_builds[0])
    growth = run_job("benchmarks.similarity.memory_job", size, 2048, 8000)["growth"]
    yield Line("memory", "peak memory above the data, 16 000 numbers, GB", growth)


@row("D10", "six kernels, twenty coordinates, no noise")
def six_kernels(context: Context) -> Iterator[Line]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(context.size(500, 100), 20, generator=g, dtype=torch.float64) / math.sqrt(20)
    y = torch.randn(50, 20, generator=g, dtype=torch.float64) / math.sqrt(20)
    worst = 0.0
    for kernel in KERNELS:
        exact = similarity(kernel, x, y).mean(-1)
        bias = []
        for seed in range(context.size(50, 3)):
            sketch = PrivateKDE(20, kernel, bandwidth=1.0, num_features=8192, seed=seed)
            answer = without_noise(sketch.update(x), y) / len(x)
            bias.append((answer - exact).mean())
        figure = abs(float(torch.stack(bias).mean()))
        yield Line(f"bias_{kernel}", f"bias, {kernel}", figure)
        worst = max(worst, figure)
    yield Line("bias", "largest bias", worst)


@row("D11", "coverage of 95 % intervals")
def coverage(context: Context) -> Iterator[Line]:
    plane_x = 9 * uniform(context.size(5000, 500), 2, 0)
    plane_y = 9 * uniform(100, 2, 1)
    g = torch.Generator().manual_seed(2)
    centers = torch.randn(5, 5, generator=g, dtype=torch.float64)
    which = torch.randint(0, 5, (len(plane_x) + 100,), generator=g)
    mixed = centers[which] + 0.5 * torch.randn(len(which), 5, generator=g, dtype=torch.float64)
    data = {"uniform": (plane_x, plane_y), "mixture": (mixed[:-100], mixed[-100:])}
    for name, (x, y) in data.items():
        exact = similarity("gaussian", x, y).mean(-1)
        for features in (300, 1500):
            inside = []
            for seed in range(context.size(240, 5)):  # of 60, the share scatters by .02
                sketch: Sketch = PrivateKDE(
                    x.shape[1], bandwidth=1.0, num_features=features, seed=seed
                )
                (release,) = releases(sketch.update(x), approximate(1.0, 1e-6), 1)
                low, high = release.query(y).interval(0.95)
                inside.append((low <= exact) & (exact <= high))
            share = float(torch.stack(inside).double().mean())
            yield Line(f"{name}_{features}", f"{name}, m = {features}", share)
