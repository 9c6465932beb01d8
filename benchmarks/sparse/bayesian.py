"""S19: the fully Bayesian fit, by samplers through the shared engines, against the solver."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

import torch

from benchmarks.frame import Context, Line, row
from probkit import fit
from probkit.infer import HMC, NUTS, FitResult
from probkit.sparse import (
    CoefficientDraws,
    KroneckerSBL,
    RecoveryProblem,
    draw_coefficients,
    kronecker_sparse_model,
    nmse,
    simulate_recovery,
)

_CHAINS = 16  # one gradient of all of them costs little more than that of one


def _sample(
    problem: RecoveryProblem, engine: HMC | NUTS, seed: int
) -> tuple[FitResult, CoefficientDraws]:
    data = {"y": problem.y, "dictionaries": problem.dictionaries, "prior": "horseshoe"}
    result = fit(kronecker_sparse_model, data, engine=engine, seed=seed)
    found = draw_coefficients(
        result.posterior, problem.y, problem.dictionaries, num_samples=600, seed=seed
    )
    return result, found


def _problem(seed: int) -> RecoveryProblem:
    """60 slices, 8000 atoms, 960 measurements."""
    return simulate_recovery(
        num_atoms=20, num_measurements=(8, 10, 12), num_nonzero=3, snr_db=20.0, seed=seed
    )


@row("S19", "fully Bayesian: horseshoe on slices, 20 dB")
def horseshoe(context: Context) -> Iterator[Line]:
    ours, solver, inside, converged = [], [], [], []
    engine = HMC(
        num_chains=_CHAINS,
        num_warmup=context.size(100, 20),
        num_samples=context.size(80, 10),
        max_leapfrogs=32,
    )
    for seed in range(context.size(20, 1)):
        p = _problem(seed)
        result, found = _sample(p, engine, seed)
        lower, upper = found.interval(0.9)
        inside.append(((lower <= p.x) & (p.x <= upper))[p.x != 0].double())
        ours.append(nmse(found.mean, p.x))
        solver.append(nmse(KroneckerSBL().recover(p.y, p.dictionaries).mean, p.x))
        converged.append(float(result.diagnostics["max_r_hat"] <= 1.1))
    yield Line("nmse", "mean NMSE (baseline: structured solver)", fmean(ours), fmean(solver))
    yield Line("coverage", "90 % intervals of true entries", float(torch.cat(inside).mean()))
    yield Line("mixed", "share of fits with r_hat below 1.1", fmean(converged))
    yield from _referee(context)


def _referee(context: Context) -> Iterator[Line]:
    """NUTS against the many chains, same model and data."""
    p = _problem(0)
    count = context.size(150, 10)
    many = HMC(num_chains=_CHAINS, num_warmup=count, num_samples=count, max_leapfrogs=32)
    single = NUTS(num_warmup=count, num_samples=count, max_tree_depth=6)
    one, other = (_sample(p, engine, 1)[1] for engine in (many, single))
    on = p.x != 0
    gap = ((one.mean - other.mean).abs() / one.sd)[on]
    yield Line("gap", "largest difference of means, in posterior sd", float(gap.max()))
    widths = (other.sd / one.sd)[on]
    yield Line("width", "median ratio of posterior sd", float(widths.median()))
