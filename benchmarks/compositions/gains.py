"""C2: Kronecker sparse recovery with unknown gains of the sensors."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from benchmarks.frame import Context, Line, row
from probkit import fit
from probkit.infer import MAP
from probkit.sparse import KroneckerSBL, kronecker_sparse_model, nmse, simulate_recovery


@row("C2", "sparse recovery with unknown gains of ten sensors, 20 dB, median over problems")
def recovery(context: Context) -> Iterator[Line]:
    errors: dict[str, list[float]] = {"ignored": [], "learned": [], "known": []}
    for seed in range(context.size(7, 1)):
        for name, error in replicate(seed, context.size(400, 60)).items():
            errors[name].append(error)
    median = {name: statistics.median(found) for name, found in errors.items()}
    what = "NMSE, gains learned"
    yield Line("learned", f"{what} (baseline: ignored)", median["learned"], median["ignored"])
    yield Line("known", f"{what} (baseline: known)", median["learned"], median["known"])


def replicate(seed: int, steps: int) -> dict[str, float]:
    """NMSE of one problem with the gains ignored, learned and known."""
    problem = simulate_recovery(
        num_measurements=(10, 10, 8), num_atoms=(14, 12, 6), num_nonzero=3, snr_db=20, seed=seed
    )
    first, *others = problem.dictionaries
    generator = torch.Generator().manual_seed(1000 + seed)
    log_gains = 0.3 * torch.randn(10, generator=generator, dtype=torch.float64)
    log_gains[0] = 0.0
    y = log_gains.exp()[:, None, None] * problem.y
    data = {"y": y, "first": first, "others": others}
    result = fit(_model, data, engine=MAP(max_steps=steps), seed=0)
    free = result.posterior.point()["log_gains"]
    found = torch.cat([free.new_zeros(1), free])

    def error(log: Tensor) -> float:
        dictionaries = [log.exp()[:, None] * first, *others]
        return float(nmse(KroneckerSBL().recover(y, dictionaries).mean, problem.x))

    cases = {"ignored": torch.zeros_like(found), "learned": found, "known": log_gains}
    return {name: error(log) for name, log in cases.items()}


def _model(y: Tensor, first: Tensor, others: list[Tensor]) -> None:
    free = pyro.sample("log_gains", dist.Normal(y.new_zeros(len(first) - 1), 0.5).to_event(1))
    gains = torch.cat([y.new_ones(1), free.exp()])
    kronecker_sparse_model(y, [gains[:, None] * first, *others], prior="gaussian")
