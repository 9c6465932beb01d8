"""Accuracy and speed of the state-space core: the acceptance figures T1, T2, T4, T10 and T17.

Each function stands alone and returns figures; ``python benchmarks/statespace.py`` prints all.
Times are CPU seconds of one thread, the least of several rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from benchmarks.baselines.plain_kalman import smooth_matern32
from probkit.kernels import MaternKernel
from probkit.random import as_generator
from probkit.statespace.interpolation import interpolate
from probkit.statespace.sites import observe
from probkit.statespace.smoother import choose_method, log_normalizer, smooth
from probkit.statespace.stacking import block_diagonal, stack
from probkit.statespace.types import Posterior, Sites, Transitions

ROUNDS = 5
SEQUENTIAL_POINTS = 20_000


def t1() -> float:
    """Largest relative error against the dense process: T = 200, three stacked components."""
    worst = 0.0
    for nu in (0.5, 1.5, 2.5):
        generator = as_generator(0)
        kernels = [_matern(nu, ell, var) for ell, var in ((1.0, 1.0), (0.5, 2.0), (2.0, 0.5))]
        gaps = 0.02 + 0.3 * torch.rand(200, generator=generator, dtype=torch.float64)
        times = gaps.cumsum(0)
        prior = stack([kernel.transitions(times) for kernel in kernels])
        H = block_diagonal([kernel.output_map() for kernel in kernels])
        roots = torch.randn(200, 3, 5, generator=generator, dtype=torch.float64)
        linear = torch.randn(200, 3, generator=generator, dtype=torch.float64)
        sites = Sites(roots @ roots.mT, linear, linear.new_zeros(()))
        worst = max(worst, _dense_error(kernels, times, H, sites, smooth(prior, H, sites)))
    return worst


def t2() -> float:
    """Largest error of the posterior mean with near-duplicates at gaps 1e-4 to 1e-10."""
    kernel, worst = _matern(1.5, 0.3, 1.0), 0.0
    for gap in (1e-4, 1e-6, 1e-8, 1e-10):
        times = torch.rand(50, generator=as_generator(1), dtype=torch.float64)
        times = torch.cat([times, times + gap]).sort().values
        y = torch.sin(6 * times)
        gram = _gram(kernel, times, times)
        mean = gram @ torch.linalg.solve(gram + 1e-6 * torch.eye(100, dtype=torch.float64), y)
        posterior = smooth(kernel.transitions(times), kernel.output_map(), observe(y, 1e-6))
        got = (posterior.mean @ kernel.output_map().mT).squeeze(-1)
        worst = max(worst, float((got - mean).abs().max()))
    return worst


def t4() -> float:
    """Largest error of mean and variance off the grid, up to 0.3 left and right of the data."""
    worst = 0.0
    for nu in (0.5, 1.5):
        kernel = _matern(nu, 0.3, 1.0)
        times = torch.rand(100, generator=as_generator(2), dtype=torch.float64).sort().values
        points = torch.linspace(-0.3, 1.3, 161, dtype=torch.float64)
        y, noise = torch.sin(6 * times), 0.01
        H = kernel.output_map()
        posterior = smooth(kernel.transitions(times), H, observe(y, noise))
        mean, covariance = interpolate(kernel.transitions, times, posterior, points)
        system = _gram(kernel, times, times) + noise * torch.eye(100, dtype=torch.float64)
        across = _gram(kernel, points, times)
        solved = torch.linalg.solve(system, torch.cat([y[:, None], across.mT], 1))
        variance = 1.0 - (across * solved[:, 1:].mT).sum(-1)
        errors = (
            (mean @ H.mT).squeeze(-1) - across @ solved[:, 0],
            (H @ covariance @ H.mT).flatten() - variance,
        )
        worst = max(worst, *(float(error.abs().max()) for error in errors))
    return worst


def t10() -> tuple[float, float]:
    """Seconds of one smoother pass (D = 4000, R = 3), and time at D = 1e5 over 1e4."""
    seconds = []
    for length in (4_000, 10_000, 100_000):
        generator = as_generator(0)
        times = torch.rand(length, generator=generator, dtype=torch.float64).sort().values
        kernels = [_matern(0.5, ell, 1.0) for ell in (0.1, 0.2, 0.3)]
        prior = stack([kernel.transitions(times) for kernel in kernels])
        roots = torch.randn(length, 3, 5, generator=generator, dtype=torch.float64)
        linear = torch.randn(length, 3, generator=generator, dtype=torch.float64)
        sites = Sites(roots @ roots.mT, linear, linear.new_zeros(()))
        H = torch.eye(3, dtype=torch.float64)
        seconds.append(_seconds(lambda p=prior, s=sites, h=H: smooth(p, h, s)))
    return seconds[0], seconds[2] / seconds[1]


def t17() -> dict[str, float]:
    """One Matern-3/2 process at 1e5 irregular points: seconds, and errors on the first part."""
    generator = as_generator(0)
    gaps = torch.empty(100_000, dtype=torch.float64).exponential_(generator=generator) * 0.1
    times = gaps.cumsum(0)
    noise_draw = torch.randn(100_000, generator=generator, dtype=torch.float64)
    y = torch.sin(times) + 0.3 * noise_draw
    theta = torch.tensor([1.0, 1.0, 0.09], dtype=torch.float64).log().requires_grad_()
    unit = _matern(1.5, 1.0, 1.0)

    def model(count: int) -> tuple[Transitions, Tensor, Sites]:
        lengthscale, variance, noise = theta.exp()
        A, Q = unit.transitions(times[:count] / lengthscale)
        H = unit.output_map().detach()
        return Transitions(A, Q * variance), H, observe(y[:count], noise)

    def smoothed() -> Posterior:
        with torch.no_grad():
            return smooth(*model(100_000))

    def score() -> tuple[Tensor, ...]:
        return torch.autograd.grad(log_normalizer(*model(100_000)), theta)

    with torch.no_grad():
        part = model(SEQUENTIAL_POINTS)
        fast = smooth(*part)
        mean, variance = fast.mean[:, 0], fast.covariance[:, 0, 0]
    count = SEQUENTIAL_POINTS
    exact = smooth_matern32(times[:count].numpy(), y[:count].numpy(), *theta.exp().tolist())
    return {
        "value_and_gradient_seconds": _seconds(score),
        "smoothed_seconds": _seconds(smoothed),
        "log_likelihood_error": abs(float(fast.log_normalizer) - exact.log_likelihood),
        "mean_error": float(np.abs(mean.numpy() - exact.mean).max()),
        "variance_error": float(np.abs(variance.numpy() - exact.variance).max()),
        "covariance_form": float(choose_method(part[0]).method == "parallel"),
    }


def _matern(nu: float, lengthscale: float, variance: float) -> MaternKernel:
    kernel = MaternKernel(nu)
    kernel.lengthscale = lengthscale
    kernel.variance = variance
    return kernel.requires_grad_(False)


def _gram(kernel: MaternKernel, first: Tensor, second: Tensor) -> Tensor:
    return kernel.forward(first[:, None], second[:, None])


def _dense_error(
    kernels: list[MaternKernel], times: Tensor, H: Tensor, sites: Sites, posterior: Posterior
) -> float:
    """Relative error of mean, variances and neighbour covariances of f, and of the normaliser."""
    T, m = sites.linear.shape
    prior = torch.zeros(T, m, T, m, dtype=torch.float64)
    for r, kernel in enumerate(kernels):
        prior[:, r, :, r] = _gram(kernel, times, times)
    K = prior.reshape(T * m, T * m)
    root = torch.block_diag(*torch.linalg.cholesky(sites.precision))
    factor = torch.linalg.cholesky(torch.eye(T * m, dtype=torch.float64) + root.T @ K @ root)
    half = torch.linalg.solve_triangular(factor, root.T @ K, upper=False)
    covariance = (K - half.T @ half).reshape(T, m, T, m)
    mean = (K - half.T @ half) @ sites.linear.flatten()
    value = 0.5 * sites.linear.flatten() @ mean - factor.diagonal().log().sum()
    index = torch.arange(T)
    pairs = (
        ((posterior.mean @ H.mT).flatten(), mean),
        (H @ posterior.covariance @ H.mT, covariance[index, :, index, :]),
        (H @ posterior.cross @ H.mT, covariance[index[1:], :, index[:-1], :]),
        (posterior.log_normalizer, value),
    )
    return max(float((got - want).abs().max() / want.abs().max()) for got, want in pairs)


def _seconds(call: Callable[[], object]) -> float:
    call()
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        call()
        best = min(best, time.process_time() - start)
    return best


def main() -> None:
    torch.set_num_threads(1)
    for figure in (t1, t2, t4, t10, t17):
        print(figure.__name__, figure())


if __name__ == "__main__":
    main()
