"""T1-T6: algebra against dense references."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from benchmarks.frame import Context, Line, row
from benchmarks.process_noise import t3
from benchmarks.statespace import t1, t2, t4
from benchmarks.tensor.dense import dense_elbo
from probkit.kernels import MaternKernel
from probkit.tensor.entries import Entries
from probkit.tensor.fibers import FiberTree
from probkit.tensor.likelihoods import Gaussian
from probkit.tensor.structure import make_structure
from probkit.tensor.variational import TuckerVariational


@row("T1", "block-tridiagonal algebra against a dense GP")
def algebra(context: Context) -> Iterator[Line]:
    yield Line("error", "mean, variance, neighbour covariance, log Z: relative error", t1())


@row("T2", "near-duplicate points")
def near_duplicates(context: Context) -> Iterator[Line]:
    yield Line("error", "gaps 1e-4 to 1e-10: error of the posterior mean", t2())


@row("T3", "process noise")
def process_noise(context: Context) -> Iterator[Line]:
    yield Line("error", "PSD process noise to nu = 7/2: scaled error", t3())


@row("T4", "off-grid and extrapolation")
def off_grid(context: Context) -> Iterator[Line]:
    yield Line("error", "off-grid, 0.3 outside the data: error of mean and variance", t4())


@row("T5", "core consistency")
def core_consistency(context: Context) -> Iterator[Line]:
    """u_k' a_n = f_n for every mode, ranks (2, 3, 4), against plain sums over the core."""
    generator = torch.Generator().manual_seed(0)
    options = {"generator": generator, "dtype": torch.float64}
    sizes, ranks, num_entries = (7, 5, 6), (2, 3, 4), 100
    index = [torch.randint(0, d, (num_entries,), generator=generator) for d in sizes]
    means = [torch.randn(d, r, **options) for d, r in zip(sizes, ranks, strict=True)]
    structure = make_structure("tucker", ranks)
    weights = torch.randn(structure.num_weights, **options)
    rows = [m[i] for m, i in zip(means, index, strict=True)]
    value = torch.einsum("abc,na,nb,nc->n", weights.reshape(ranks), *rows)
    worst = 0.0
    for mode in range(3):
        # one entry alone at a time, so that the sum over its root row is a_n itself
        for n in range(num_entries):
            tree = FiberTree([i[n : n + 1] for i in index], sizes, mode)
            sums = tree.accumulate(means, None, structure.combine)
            slope = structure.fold(sums, structure.core(weights), mode, tree.order)
            row_n = int(index[mode][n])
            worst = max(worst, abs(float(slope[row_n] @ means[mode][row_n] - value[n])))
    yield Line("error", "u_k' a_n = f_n for every mode, ranks (2, 3, 4): error", worst)


@row("T6", "the ELBO")
def elbo(context: Context) -> Iterator[Line]:
    sweeps = context.size(50, 10)
    worst = 0.0
    for structure in ("cp", "tucker"):
        for learn in (False, True):
            values = _objectives(structure, learn, sweeps)
            drops = [(a - b) / abs(b) for a, b in itertools.pairwise(values)]
            worst = max(worst, *drops)
    yield Line("decrease", f"largest relative fall over {sweeps} sweeps, 4 settings", worst)
    errors = [_elbo_error(structure) for structure in ("cp", "tucker")]
    yield Line("exact", "against a dense brute-force ELBO, N = 60: relative error", max(errors))


def _model(structure: str, num_entries: int, sizes: tuple[int, ...]) -> TuckerVariational:
    generator = torch.Generator().manual_seed(1)
    columns = []
    for size in sizes:
        grid = torch.rand(size, generator=generator, dtype=torch.float64)
        columns.append(grid[torch.randint(0, size, (num_entries,), generator=generator)])
    f = torch.sin(6 * columns[0]) * torch.exp(columns[1]) + columns[2] * torch.cos(4 * columns[0])
    noise = torch.randn(num_entries, generator=generator, dtype=torch.float64)
    entries = Entries.from_columns(columns, f + 0.1 * noise + 0.5)

    def kernel(mode: int, rank: int) -> MaternKernel:
        kernel = MaternKernel(0.5, batch_shape=torch.Size([rank]))
        kernel.lengthscale = 0.3
        return kernel

    return TuckerVariational(entries, Gaussian(), structure, kernel)


def _objectives(structure: str, learn: bool, sweeps: int) -> list[float]:
    model = _model(structure, 1000, (40, 30, 50))
    state = model.initial((3, 3, 3), torch.Generator().manual_seed(2))
    values = []
    for _ in range(sweeps):
        state, objective = model.sweep(state, learn)
        values.append(float(objective))
    return values


def _elbo_error(structure: str) -> float:
    model = _model(structure, 60, (8, 7, 9))
    state = model.initial((2, 2, 2), torch.Generator().manual_seed(3))
    for step in range(5):
        state, objective = model.sweep(state, learn=step > 2)
    got = float(objective - model.log_prior(state))
    expected = dense_elbo(model, state)
    return abs(got - expected) / abs(expected)
