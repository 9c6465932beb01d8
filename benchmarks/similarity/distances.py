"""D1 to D7: sums of distances against the paper's trees."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from benchmarks.baselines.noisy_trees import CountSumTree, TreeL1
from benchmarks.frame import Context, Line, cpu_time, cpu_times, row
from benchmarks.similarity.releases import approximate, pure, releases, rmse, without_noise
from probkit.similarity import PrivateDistance


def uniform(size: int, dim: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(size, dim, generator=generator, dtype=torch.float64)


def exact_l1(x: Tensor, y: Tensor) -> Tensor:
    """Sums of l1 distances by sorting."""
    total = torch.zeros(len(y), dtype=torch.float64)
    for column, at in zip(x.T, y.T, strict=True):
        sorted_x = column.sort().values
        sums = torch.cat([torch.zeros(1, dtype=torch.float64), sorted_x.cumsum(0)])
        k = torch.searchsorted(sorted_x, at.contiguous())
        total += at * k - sums[k] + sums[-1] - sums[k] - at * (len(x) - k)
    return total


def tree_rmse(kind: type, x: Tensor, y: Tensor, exact: Tensor, count: int) -> float:
    rng = np.random.default_rng(0)
    errors = [
        torch.from_numpy(kind(x.numpy(), 1.0, rng).query(y.numpy())) - exact for _ in range(count)
    ]
    return rmse(errors)


@row("D1", "l1, one coordinate, pure budget")
def one_coordinate(context: Context) -> Iterator[Line]:
    x, y = uniform(context.size(100_000, 2000), 1, 0), uniform(200, 1, 1)
    exact = exact_l1(x, y)
    count = context.size(3000, 20)
    trees = context.size(20, 2)
    tree = tree_rmse(TreeL1, x, y, exact, trees)
    both = tree_rmse(CountSumTree, x, y, exact, trees)
    sketch = PrivateDistance(1, bounds=(0.0, 1.0)).update(x)
    for continuous, name in ((False, "discrete"), (True, "float")):
        errors, predicted = [], 1.0
        for release in releases(sketch, pure(1.0), count, continuous=continuous):
            answer = release.query(y)
            errors.append(answer.value - exact)
            predicted = float(answer.noise_sd[0])
        figure = rmse(errors)
        yield Line(name, f"RMSE, n = 1e5, epsilon 1, {name} noise", figure)
        yield Line(f"{name}_ratio", f"RMSE over predicted sd, {name} noise", figure / predicted)
        if not continuous:
            yield Line("tree", "TreeL1 (alpha .1) over ours", tree / figure)
            yield Line("count_sum", "CountSumTree over ours", both / figure)
    yield Line("tree_rmse", "RMSE of TreeL1", tree)
    yield Line("count_sum_rmse", "RMSE of CountSumTree", both)


@row("D2", "l1, all records at one point")
def one_point(context: Context) -> Iterator[Line]:
    size = context.size(100_000, 2000)
    x, y = torch.full((size, 1), 0.3, dtype=torch.float64), uniform(200, 1, 1)
    y[0] = 0.3
    exact = exact_l1(x, y)
    sketch = PrivateDistance(1, bounds=(0.0, 1.0)).update(x)
    count = context.size(1000, 20)
    errors = [r.query(y).value - exact for r in releases(sketch, pure(1.0), count)]
    yield Line("rmse", "RMSE, G = 4096", rmse(errors))
    bias = float((without_noise(sketch, y[:1]) - exact[:1]).abs())
    yield Line("bias", "bias at the point, without noise", bias)


@row("D3", "l1, sixteen coordinates")
def sixteen(context: Context) -> Iterator[Line]:
    x, y = uniform(context.size(10_000, 1000), 16, 0), uniform(200, 16, 1)
    exact = exact_l1(x, y)
    count = context.size(30, 3)
    sketch = PrivateDistance(16, bounds=(0.0, 1.0)).update(x)
    errors = [r.query(y).value - exact for r in releases(sketch, approximate(1, 1e-6), count)]
    yield Line("zcdp", "RMSE, (1, 1e-6), replace", rmse(errors))
    sketch = PrivateDistance(16, bounds=(0.0, 1.0), relation="add_remove").update(x)
    errors = [r.query(y).value - exact for r in releases(sketch, pure(1.0), count)]
    yield Line("pure", "RMSE, pure epsilon 1, add_remove", rmse(errors))
    yield Line("tree", "RMSE of TreeL1, pure", tree_rmse(TreeL1, x, y, exact, context.size(4, 1)))


@row("D4", "l1, speed of queries")
def speed(context: Context) -> Iterator[Line]:
    x, y = uniform(context.size(10_000, 1000), 16, 0), uniform(200, 16, 1)
    rng = np.random.default_rng(0)
    sketch = PrivateDistance(16, bounds=(0.0, 1.0)).update(x)
    (release,) = releases(sketch, pure(1.0), 1)
    release.query(y)
    ours = cpu_time(lambda: [release.query(y) for _ in range(200)], 3) / 200
    tree, both = TreeL1(x.numpy(), 1.0, rng), CountSumTree(x.numpy(), 1.0, rng)
    theirs = cpu_time(lambda: tree.query(y.numpy()))
    yield Line("tree", "200 queries: TreeL1 over ours", theirs / ours)
    theirs = cpu_time(lambda: both.query(y.numpy()), 3)
    yield Line("count_sum", "200 queries: CountSumTree over ours", theirs / ours)
    large = PrivateDistance(16, bounds=(0.0, 1.0)).update(uniform(context.size(10**6, 5000), 16, 2))
    (other,) = releases(large, pure(1.0), 1)
    many, few = cpu_times(
        [lambda one=one: [one.query(y) for _ in range(200)] for one in (other, release)], 9
    )
    yield Line("growth", "query at n = 1e6 over n = 1e4", many / few)


@row("D5", "l1, 2048 coordinates")
def high_dimension(context: Context) -> Iterator[Line]:
    part = uniform(context.size(10_000, 100), 2048, 0).float()
    sketch = PrivateDistance(2048, bounds=(0.0, 1.0))

    def update(times: int) -> float:
        start = time.process_time()
        for _ in range(times):
            sketch.update(part)
        return time.process_time() - start

    first = update(10)
    yield Line("update", "update, n = 1e5, G = 512, CPU s", first)
    yield Line("growth", "update of twice as many over once", update(20) / first)
    yield Line("state", "state, MB", sketch.state.numel() * 8 / 1e6)


@row("D6", "l2, 64 coordinates")
def euclidean(context: Context) -> Iterator[Line]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(context.size(10_000, 500), 64, generator=generator, dtype=torch.float64)
    x = x / torch.linalg.vector_norm(x, dim=1, keepdim=True)
    x = x * torch.rand(len(x), 1, generator=generator, dtype=torch.float64)
    y, count = x[:100] * 0.9, context.size(30, 2)
    exact = torch.cdist(y, x).sum(-1)
    first = None
    for directions in (512, 2048):
        sketch = PrivateDistance(64, "l2", radius=1.0, num_directions=directions).update(x)
        clean = without_noise(sketch, y)
        answers = [r.query(y).value for r in releases(sketch, approximate(1, 1e-6), count)]
        noise = rmse([a - clean for a in answers])
        if first is None:
            first = noise
            yield Line("noise", "noise-only RMSE, K = 512", noise)
            total = rmse([a - exact for a in answers]) / float(exact.mean())
            yield Line("total", "relative error in all, K = 512", total)
        else:
            yield Line("growth", "noise-only RMSE, K = 2048 over 512", noise / first)


@row("D7", "squared l2")
def squared(context: Context) -> Iterator[Line]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(context.size(10_000, 500), 8, generator=generator, dtype=torch.float64)
    x = x / torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min(1)
    y = x[:20] * 0.7
    exact = torch.cdist(y, x).square().sum(-1)
    sketch = PrivateDistance(8, "l2sq", radius=1.0).update(x)
    clean = without_noise(sketch, y)
    yield Line(
        "exact", "relative error without noise", float(((clean - exact) / exact).abs().max())
    )
    worst = 0.0
    for budget in (pure(1.0), approximate(1, 1e-6)):
        count = context.size(2000, 50)
        answers = [r.query(y) for r in releases(sketch, budget, count)]
        errors = torch.stack([a.value - clean for a in answers])
        ratio = errors.square().mean(0).sqrt() / answers[0].noise_sd
        worst = max(worst, float((ratio.mean() - 1).abs()))
    yield Line("noise", "noise sd against the formula, relative", worst)
