"""S1 to S4, S13, S15: exactness, gradients, monotone evidence, calibration, limits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from benchmarks.frame import Context, Line, row
from benchmarks.sparse import dense
from probkit.infer import CAVI
from probkit.linalg.kronecker_gaussian import condition, kronecker_log_evidence
from probkit.linalg.mode_products import mode_products, outer
from probkit.random import as_generator
from probkit.sparse import KroneckerSBL, nmse, simulate_recovery
from probkit.sparse.coupled import CoupledProgram
from probkit.sparse.evidence import EvidenceProgram
from probkit.sparse.problem import Problem
from probkit.sparse.program import Layout
from probkit.sparse.updates import evidence_noise, expectation_noise, expectation_step

_DTYPES = (torch.float64, torch.complex128)


def _parts(dtype: torch.dtype, columns: int, rows: tuple[int, ...] = (3, 4, 4), size: int = 5):
    g = as_generator(0)
    factors = [torch.randn(m, size, generator=g, dtype=dtype) for m in rows]
    scales = [torch.rand(size, generator=g, dtype=torch.float64) + 0.1 for _ in rows]
    noise = torch.tensor(0.3, dtype=torch.float64)
    return factors, scales, noise, torch.randn(columns, *rows, generator=g, dtype=dtype)


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@row("S1", "posterior and evidence against dense formulas")
def conditioning(context: Context) -> Iterator[Line]:
    worst = 0.0
    for dtype in _DTYPES:
        for columns in (1, 3):
            factors, scales, noise, y = _parts(dtype, columns)
            found = condition(factors, scales, noise, y)
            mean, variance, evidence = dense.conditioning(factors, scales, float(noise), y)
            errors = (
                _relative(found.mean.flatten(1).mT, mean),
                _relative(found.variance.flatten(), variance),
                _relative(found.log_evidence, evidence),
            )
            worst = max(worst, *errors)
    yield Line("error", "mean, variance, evidence: worst relative error", worst)


@row("S2", "gradient of the evidence")
def gradient(context: Context) -> Iterator[Line]:
    passed = 0
    cases = [(dtype, rows) for dtype in _DTYPES for rows in ((3, 4, 4), (7, 2, 3))]
    for dtype, rows in cases:
        factors, scales, noise, y = _parts(dtype, 2, rows)
        factors[0] = torch.eye(rows[0], 5, dtype=dtype)
        scales[0] = torch.ones_like(scales[0])
        leaves = [x.requires_grad_() for x in (noise, *scales)]

        def evidence(noise: Tensor, *scales: Tensor, f=factors, y=y) -> Tensor:
            return kronecker_log_evidence(f, list(scales), noise, y)

        passed += torch.autograd.gradcheck(
            evidence, leaves, eps=1e-6, atol=1e-5, raise_exception=False
        )
    yield Line("passed", "share of gradchecks passed (equal eigenvalues too)", passed / len(cases))


@row("S3", "evidence never falls")
def monotone(context: Context) -> Iterator[Line]:
    steps, worst = context.size(300, 50), {"mm": 0.0, "em": 0.0, "coupled": 0.0}
    for is_complex in (False, True):
        for learn in (False, True):
            p = simulate_recovery(
                num_atoms=8, num_measurements=(5, 6, 6), is_complex=is_complex, seed=4, snr_db=15
            )
            noise = None if learn else torch.tensor([p.noise], dtype=torch.float64)
            problem = Problem([a.unsqueeze(0) for a in p.dictionaries], p.y[None, None], noise)
            layout, options = Layout((), False, "C"), {"tolerance": 1e-300, "drop_below": 1e-60}
            one = EvidenceProgram(problem, layout, starts=("flat",), select=False, **options)
            two = CoupledProgram(problem, layout, couplings=(0.8,), **options)
            for name, program in (("mm", one), ("coupled", two)):
                history = CAVI(max_sweeps=steps).fit(program).history["objective"]
                worst[name] = max(worst[name], _fall(history))
            worst["em"] = max(worst["em"], _fall(_em(problem, steps)))
    for name, fall in worst.items():
        yield Line(name, f"{name}: largest fall over 1 + abs(evidence)", fall)


def _em(problem: Problem, steps: int) -> np.ndarray:
    scales = problem.equal_scales()
    noise = 0.1 * problem.power if problem.noise is None else problem.noise
    history = []
    for _ in range(steps):
        found = problem.active(scales, noise).condition()
        history.append(float(found.log_evidence))
        scales = expectation_step(found)
        noise = expectation_noise(found) if problem.noise is None else noise
        scales = [torch.maximum(g, 1e-60 * g.amax(-1, keepdim=True)) for g in scales]
    assert bool(torch.isfinite(evidence_noise(found)).all())
    return np.asarray(history)


def _fall(history: np.ndarray) -> float:
    return float(np.maximum(-np.diff(history) / (1 + np.abs(history[:-1])), 0).max())


@row("S4", "the paper's methods against dense transcriptions")
def transcriptions(context: Context) -> Iterator[Line]:
    for method in ("am", "svd", "ksbl", "paper_pattern_coupled", "classic"):
        worst = 0.0
        for seed in (1, 2, 3)[: context.size(3, 1)]:
            p = simulate_recovery(
                num_atoms=10,
                num_measurements=(6, 8, 10),
                num_nonzero=2,
                snr_db=15.0,
                structure="rank1",
                seed=seed,
            )
            found = KroneckerSBL(method, noise=p.noise).recover(p.y, p.dictionaries).mean
            worst = max(worst, _relative(found, dense.reference(p, method)[0]))
        yield Line(method, f"{method}: worst relative difference of x", worst)


@row("S13", "calibration")
def calibration(context: Context) -> Iterator[Line]:
    inside = total = 0
    factors, scales, noise, _ = _parts(torch.float64, 1)
    noise = noise * 10
    g = as_generator(1)
    root = outer(scales).sqrt()
    for _ in range(context.size(60, 10)):
        x = root * torch.randn(root.shape, generator=g, dtype=root.dtype)
        clean = mode_products(x, factors)
        y = clean + noise.sqrt() * torch.randn(clean.shape, generator=g, dtype=root.dtype)
        found = condition(factors, scales, noise, y.unsqueeze(0))
        half = 1.6448536269514722 * found.variance.sqrt()
        inside += int(((found.mean[0] - x).abs() < half).sum())
        total += x.numel()
    yield Line("prior", "90 % coverage, x from the prior, scales known", inside / total)
    inside = total = 0
    for seed in range(context.size(10, 2)):
        p = simulate_recovery(snr_db=15.0, seed=100 + seed)
        low, high = KroneckerSBL().recover(p.y, p.dictionaries).interval(0.9)
        true = p.x != 0
        inside += int(((low < p.x) & (p.x < high))[true].sum())
        total += int(true.sum())
    yield Line("support", "90 % coverage on the true support, scales learned", inside / total)
    p = simulate_recovery(num_atoms=8, num_measurements=(5, 6), snr_db=10.0, seed=6)
    found = KroneckerSBL(noise=p.noise).recover(p.y, p.dictionaries)
    count = context.size(20_000, 2_000)
    draws = found.posterior.sample(count, as_generator(0))["x"]
    kept = found.support
    mean = (draws.mean(0) - found.mean).abs()[kept] / (found.sd[kept] / count**0.5)
    variance = (draws.var(0)[kept] / found.sd[kept].square() - 1).abs() / (2 / count) ** 0.5
    yield Line("draws", "moments of draws, worst error in standard errors", _top(mean, variance))


def _top(*values: Tensor) -> float:
    return max(float(v.max()) for v in values)


@row("S15", "noiseless limit, single precision, units")
def limits(context: Context) -> Iterator[Line]:
    p = simulate_recovery(snr_db=300.0, seed=3)
    found = KroneckerSBL(noise="noiseless").recover(p.y, p.dictionaries)
    yield Line("noiseless", "NMSE without noise", nmse(found.mean, p.x))
    good = bool((torch.isfinite(found.sd) & (found.sd >= 0)).all())
    yield Line("finite", "variances finite and not negative", float(good))
    worst = 0.0
    for is_complex in (False, True):
        p = simulate_recovery(snr_db=20.0, seed=1, is_complex=is_complex)
        full = KroneckerSBL().recover(p.y, p.dictionaries).mean
        short = torch.complex64 if is_complex else torch.float32
        y, a = p.y.to(short), [d.to(short) for d in p.dictionaries]
        single = KroneckerSBL().recover(y, a).mean.to(full.dtype)
        worst = max(worst, nmse(single, p.x) / nmse(full, p.x))
    yield Line("single", "NMSE of single over double precision, worst", worst)
    p = simulate_recovery(snr_db=15.0, seed=2)
    first = KroneckerSBL().recover(p.y, p.dictionaries).mean
    other = KroneckerSBL().recover(1e4 * p.y, [1e-3 * p.dictionaries[0], *p.dictionaries[1:]])
    yield Line(
        "units", "relative change of x under change of units", _relative(1e-7 * other.mean, first)
    )
