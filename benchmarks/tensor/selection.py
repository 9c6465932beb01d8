"""T14: the rank chosen by evidence, on tensors of rank three."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.frame import Context, Line, row
from benchmarks.tensor.adapter import fit, latent, ranks, rmse
from probkit.tensor.simulate import simulate_functional_tucker


@row("T14", "rank selection")
def rank_selection(context: Context) -> Iterator[Line]:
    seeds = context.size(10, 1)
    selected, automatic, oracle = 0, 0.0, 0.0
    for seed in range(seeds):
        data = simulate_functional_tucker(
            8000 + 2000,
            num_coordinates=(60, 80, 100),
            rank=3,
            nu=1.5,
            noise=0.1,
            noise_is_relative=True,
            generator=seed,
        )
        train = torch.arange(10_000) < 8000
        errors = []
        for rank in ("auto", 3):
            model = fit(
                data.x[train],
                data.y[train],
                rank=rank,
                max_rank=8,
                structure="cp",
                likelihood="gaussian",
                kernels="matern32",
                seed=seed,
            )
            estimate = latent(model, data.x[~train])[0]
            errors.append(rmse(estimate, data.f[~train]) / float(data.f.std()))
            if rank == "auto":
                selected += int(ranks(model)[0] == 3)
        automatic, oracle = automatic + errors[0] / seeds, oracle + errors[1] / seeds
    yield Line("selected", f"rank 3 selected, of {seeds} seeds (R_max = 8)", float(selected))
    yield Line("error", "relative RMSE of f (baseline: true rank)", automatic, oracle)
