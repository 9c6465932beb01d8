"""R1 - R5, R11, R12: special functions, weights, tables, exact steps, scale."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import mpmath
import numpy as np
import torch
from scipy.linalg import solve_continuous_lyapunov

from benchmarks.fractional.dense import divergence, toeplitz
from benchmarks.frame import Context, Line, row
from probkit.fractional.system import fractional_system
from probkit.special import incomplete_gamma
from probkit.statespace.fractional import MarkovApproxFBM, exact_step
from probkit.statespace.fractional_l2 import geometric_rates, l2_system, l2_weights
from probkit.statespace.fractional_noise import fgn_autocovariance
from probkit.statespace.fractional_tables import law_weights_unchecked, mvn_variance

F64 = torch.float64


@row("R1", "incomplete gamma against 30 digits")
def special(context: Context) -> Iterator[Line]:
    orders = torch.linspace(0.05, 2.5, context.size(15, 3), dtype=F64).tolist()
    points = [*torch.logspace(-6, 7, context.size(40, 6), dtype=F64).tolist(), 1.999999, 2.0]
    worst, slope = 0.0, 0.0
    with mpmath.workdps(30):
        for a in orders:
            for x in points:
                found = incomplete_gamma(torch.tensor(a, dtype=F64), torch.tensor(x, dtype=F64))
                lower = mpmath.gammainc(a, 0, x, regularized=True)
                upper = mpmath.exp(x) * mpmath.gammainc(a, x, regularized=True)
                for value, exact in zip(found, (lower, upper), strict=True):
                    worst = max(worst, abs(float(value) / float(exact) - 1))
        for a in orders[::3]:
            for x in points[::3]:

                def upper_of(order: torch.Tensor, x: float = x) -> torch.Tensor:
                    return incomplete_gamma(order, torch.tensor(x, dtype=F64))[1]

                found_slope = float(torch.func.grad(upper_of)(torch.tensor(a, dtype=F64)))
                exact = mpmath.exp(x) * mpmath.diff(
                    lambda o, x=x: mpmath.gammainc(o, x, regularized=True), a
                )
                scale = max(abs(float(exact)), 1e-12)
                slope = max(slope, abs(found_slope - float(exact)) / scale)
    yield Line("value", "P and e^x Q: largest relative error", worst)
    yield Line("slope", "d/da: largest relative error", slope)
    rates = torch.tensor([1e-3, 1.0, 1e6], dtype=F64)
    hurst = torch.linspace(0.05, 0.95, 19, dtype=F64)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda h: l2_system(h, rates, 1.0, "I")[1]))(hurst)
    bad = float((~jacobian.isfinite()).sum())
    yield Line("nan", "derivatives that are not finite, gamma T = 1e6", bad)


def _cross(hurst: float, rate: float, t: float, kind: str) -> mpmath.mpf:
    """E[B(t) (Y(t) - Y(0))] by quadrature over the noise."""
    a = hurst + 0.5
    v = mpmath.quad(lambda u: u ** (a - 1) * mpmath.exp(-rate * u), [0, t]) / mpmath.gamma(a)
    if kind == "II":
        return v
    past = mpmath.quad(
        lambda s: ((t + s) ** (a - 1) - s ** (a - 1)) * mpmath.exp(-rate * s), [0, t, mpmath.inf]
    )
    return v + mpmath.expm1(-rate * t) * past / mpmath.gamma(a)


@row("R2", "L2 weights against quadrature")
def weights(context: Context) -> Iterator[Line]:
    worst, report = 0.0, 0.0
    for hurst, rate in ((0.3, 1.0), (0.7, 0.5), (0.8, 3.0)):
        for kind in ("I", "II"):
            rates = torch.tensor([rate, 2.3], dtype=F64)
            A, b, c = l2_system(torch.tensor(hurst, dtype=F64), rates, 2.0, kind)
            with mpmath.workdps(20):
                exact = mpmath.quad(partial(_cross, hurst, rate, kind=kind), [0, 1, 2])
                # the derivative of c in T is the variance at T
                power = mpmath.mpf(2) ** (2 * hurst + 1) / (2 * hurst + 1)
            scale = float(mvn_variance(torch.tensor(hurst, dtype=F64)))
            if kind == "II":
                scale = 1 / (2 * hurst * math.gamma(hurst + 0.5) ** 2)
            process = MarkovApproxFBM(
                hurst, kind=kind, weights="l2", rates=rates, horizon=2.0, normalize="mvn"
            )
            grid, step = torch.linspace(0, 2, 4001, dtype=F64), 2 / 4000
            variance = process.variance(grid)
            simpson = torch.ones(4001, dtype=F64)
            simpson[1:-1:2], simpson[2:-1:2] = 4.0, 2.0
            integral = float((variance * simpson).sum() * step / 3)
            quadratic = float(process.weights @ A @ process.weights)
            errors = (
                float(b[0]) / float(exact) - 1,
                float(c) / (scale * float(power)) - 1,
                quadratic / integral - 1,
            )
            worst = max(worst, *(abs(e) for e in errors))
    yield Line("moments", "A, b, c of both kinds: largest relative error", worst)
    rates = geometric_rates(5, 0.05, 20.0)
    inside = True
    for kind in ("I", "II"):
        hurst_grid = torch.linspace(0.1, 0.9, 9, dtype=F64)
        found = l2_weights(hurst_grid, rates, 6.0, kind=kind)
        _, b, c = l2_system(hurst_grid, rates, 6.0, kind)
        direct = 1 - (b * found.weights).sum(-1) / c
        report = max(report, float((found.relative_error - direct).abs().max()))
        inside &= bool(((found.relative_error > 0) & (found.relative_error < 1)).all())
    yield Line("report", "error report against 1 - b'w/c", report)
    yield Line("inside", "reported errors lie in (0, 1)", float(inside))


def _kl(hurst: float, size: int) -> float:
    approximate = MarkovApproxFBM(hurst, num_steps=size).increment_covariance(size)
    exact = fgn_autocovariance(hurst, size)
    return divergence(toeplitz(exact), toeplitz(approximate)) / size


@row("R3", "law tables, exact Toeplitz divergence a point, N = 1000")
def tables(context: Context) -> Iterator[Line]:
    size = context.size(1000, 200)
    values = [_kl(h, size) for h in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)]
    yield Line("law", "worst of H = .1 ... .9, .95", max(values), 0.17)
    yield Line("rough", "H = .05", _kl(0.05, size))


@row("R4", "law tables between their nodes")
def smooth(context: Context) -> Iterator[Line]:
    size = context.size(1000, 200)
    generator = torch.Generator().manual_seed(0)
    hurst = 0.06 + 0.87 * torch.rand(context.size(200, 5), generator=generator, dtype=F64)
    worst = max(_kl(h, size) for h in hurst.tolist())
    yield Line("law", "worst divergence a point of random H", worst)
    slope = torch.func.vmap(torch.func.jacfwd(lambda h: law_weights_unchecked(h, 1000)[1]))(hurst)
    step = 1e-5
    near = [law_weights_unchecked(hurst + sign * step, 1000)[1] for sign in (1, -1)]
    error = (slope - (near[0] - near[1]) / (2 * step)).abs() / slope.abs().amax(1, True)
    yield Line("slope", "d w / d H against differences, relative", float(error.max()))


@row("R5", "exact steps")
def steps(context: Context) -> Iterator[Line]:
    size, chunks, each = context.size(256, 16), context.size(20, 1), 10_000
    process = MarkovApproxFBM(0.3, num_steps=size)
    times = torch.arange(1, size + 1, dtype=F64)
    exact, total = process.covariance(times), torch.zeros(size, size, dtype=F64)
    for seed in range(chunks):
        paths, _ = process.sample(times, each, seed=seed)
        total += paths.mT @ paths
    spread = exact.diagonal()
    error = ((exact.square() + spread[:, None] * spread) / (chunks * each)).sqrt()
    off = float(((total / chunks / each - exact) / error).abs().max())
    yield Line("samples", "largest error of a covariance (Monte-Carlo errors)", off)
    rates = geometric_rates(8, 1e-3, 1e4)
    decay, noise = exact_step(rates, 1.0)
    small, part = exact_step(rates, 0.1)
    summed = torch.zeros_like(noise)
    for _ in range(10):
        summed = summed * small[:, None] * small + part
    off = float((summed - noise).abs().max())
    yield Line("split", "one step against ten, largest difference", off)
    finite = bool(decay.isfinite().all() & noise.isfinite().all())
    yield Line("stable", "all finite at gamma h = 1e4", float(finite))


@row("R11", "fractional Ornstein-Uhlenbeck process")
def reversion(context: Context) -> Iterator[Line]:
    worst = 0.0
    hurst = torch.tensor(0.7, dtype=F64)
    step_rates, step_weights = law_weights_unchecked(hurst, 1000)
    for theta in (0.1, 1.0, 5.0, float(step_rates[3])):
        system = fractional_system(hurst, torch.tensor(0.0), torch.tensor(theta, dtype=F64), 1000)
        total = system.rates[:, None] + system.rates
        modal = float(system.loadings @ (1 / total) @ system.loadings)
        joint = _van_loan(step_rates, step_weights / mvn_variance(hurst).sqrt(), theta)
        worst = max(worst, abs(modal / joint - 1))
    yield Line("modal", "stationary variance against the joint Lyapunov equation", worst)
    for label, value in (("rough", 0.3), ("smooth", 0.7)):
        for theta in (0.01, 0.05):
            found = _spectral_error(value, theta)
            what = f"H = {value}, theta dt = {theta}: lags 0-100, share of the variance"
            yield Line(f"{label}_{theta}", what, found)


def _van_loan(rates: torch.Tensor, weights: torch.Tensor, theta: float) -> float:
    """Stationary variance of x in the joint system (x, Y)."""
    size = len(rates) + 1
    F = torch.zeros(size, size, dtype=F64)
    F[0, 0], F[0, 1:] = -theta, -weights * rates
    F[1:, 1:] = -torch.diag(rates)
    b = torch.cat([weights.sum()[None], torch.ones(size - 1, dtype=F64)])
    return float(solve_continuous_lyapunov(F.numpy(), -np.outer(b, b))[0, 0])


def _spectral_error(hurst: float, theta: float) -> float:
    """Autocovariance from a long table against quadrature of |x|^(1-2H) / (theta^2 + x^2)."""
    lags = torch.arange(101, dtype=F64)
    h = torch.tensor(hurst, dtype=F64)
    system = fractional_system(h, torch.tensor(0.0), torch.tensor(theta, dtype=F64), 16384)
    total = system.rates[:, None] + system.rates
    share = system.loadings * (system.loadings / total).sum(-1)
    found = (torch.exp(-system.rates * lags[:, None]) * share).sum(-1)
    # x = theta u, u = e^z: smooth in z; the oscillation is resolved up to u where it is negligible
    z = torch.linspace(-60, 22, 1_000_001, dtype=F64)
    u = torch.exp(z)
    density = u ** (2 - 2 * hurst) / (1 + u * u)
    constant = math.gamma(2 * hurst + 1) * math.sin(math.pi * hurst) / math.pi
    scale = constant * theta ** (-2 * hurst) * float(z[1] - z[0])
    variance = scale * float(density.sum())
    kept = u * theta < 200
    waves = (torch.where(kept, torch.cos(theta * lag * u), 0.0) for lag in lags)
    exact = torch.stack([scale * (density * wave).sum() for wave in waves])
    exact[0] = variance
    return float((found - exact).abs().max()) / variance


@row("R12", "variance of increments over one step")
def scale(context: Context) -> Iterator[Line]:
    worst = 0.0
    dt = 0.02
    for hurst in torch.linspace(0.03, 0.97, 48, dtype=F64).tolist():
        for normalize in ("unit", "mvn"):
            for size in (128, 1000, 16384):
                process = MarkovApproxFBM(hurst, num_steps=size, dt=dt, normalize=normalize)
                unit = 1.0 if normalize == "unit" else float(mvn_variance(process.hurst))
                found = float(process.increment_covariance(1)[0]) / (unit * dt ** (2 * hurst))
                worst = max(worst, abs(found - 1))
    yield Line("variance", "both scales, all H: largest relative error", worst)
