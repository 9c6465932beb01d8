"""C4: trend in long-memory noise, coverage of intervals; cost of the Markov kernel."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from gpytorch.distributions import MultivariateNormal
from gpytorch.kernels import ScaleKernel
from torch import Tensor

from benchmarks.frame import Context, Line, cpu_time, row
from probkit.kernels import FractionalNoiseKernel, MarkovFractionalKernel
from probkit.statespace.fractional_noise import sample_fgn

_NUM = 200


@row("C4", "slope in noise of H = .85, 200 steps: coverage of 90 % intervals")
def coverage(context: Context) -> Iterator[Line]:
    replications = context.size(400, 2)  # standard error 2 %
    series = sample_fgn(0.85, _NUM, replications, seed=1)
    for key, what in (("memory", "fractional noise"), ("white", "white noise")):
        held = [_held(y, memory=key == "memory") for y in series]
        share = sum(held) / replications
        yield Line(key, f"coverage, {what} assumed, {replications} series", share)
    share = float(_held_integrated(series).double().mean())
    yield Line("integrated", f"coverage, H integrated out, {replications} series", share)
    few, many = context.size(2000, 200), context.size(16_000, 1600)
    growth = _seconds(many) / _seconds(few)
    yield Line("growth", f"scaled Markov kernel plus noise, {many} over {few} times", growth)


def _held(y: Tensor, *, memory: bool) -> bool:
    """Whether the interval of the slope holds zero, H and scale by restricted likelihood."""
    steps = torch.arange(_NUM, dtype=torch.float64)[:, None]
    design = torch.cat([torch.ones_like(steps), steps / _NUM - 0.5], 1)
    if not memory:
        slope = torch.linalg.lstsq(design, y[:, None]).solution[:, 0]
        variance = (y - design @ slope).square().sum() / (_NUM - 2)
        sd = (variance * torch.linalg.inv(design.mT @ design)[1, 1]).sqrt()
        return bool(slope[1].abs() < 1.645 * sd)
    kernel = ScaleKernel(FractionalNoiseKernel(0.6)).double()
    optimizer = torch.optim.LBFGS(kernel.parameters(), max_iter=8, line_search_fn="strong_wolfe")
    small = 1e-6 * torch.eye(_NUM, dtype=torch.float64)

    def weighted() -> tuple[Tensor, Tensor, Tensor]:
        root = torch.linalg.cholesky(kernel(steps).to_dense() + small)
        both = torch.cat([design, y[:, None]], 1)
        white = torch.linalg.solve_triangular(root, both, upper=False)
        precision = white[:, :2].mT @ white[:, :2]
        slope = torch.linalg.solve(precision, white[:, :2].mT @ white[:, 2])
        residual = white[:, 2] - white[:, :2] @ slope
        loss = 0.5 * residual.square().sum() + root.diagonal().log().sum()
        return loss + 0.5 * torch.logdet(precision), slope, torch.linalg.inv(precision)

    def closure() -> float:
        optimizer.zero_grad()
        loss = weighted()[0]
        loss.backward()
        return float(loss.detach())

    optimizer.step(closure)
    with torch.no_grad():
        _, slope, covariance = weighted()
    return bool(slope[1].abs() < 1.645 * math.sqrt(float(covariance[1, 1])))


def _held_integrated(series: Tensor) -> Tensor:
    """As ``_held``, averaged over the posterior of H under a uniform prior, (series,)."""
    steps = torch.arange(_NUM, dtype=torch.float64)[:, None]
    design = torch.cat([torch.ones_like(steps), steps / _NUM - 0.5], 1)
    logs, slopes, variances = [], [], []
    for hurst in torch.linspace(0.4, 0.99, 40).tolist():
        covariance = FractionalNoiseKernel(hurst).double()(steps).to_dense().detach()
        root = torch.linalg.cholesky(covariance)
        both = torch.cat([design, series.mT], 1)
        white = torch.linalg.solve_triangular(root, both, upper=False)
        x, y = white[:, :2], white[:, 2:]
        precision = x.mT @ x
        slope = torch.linalg.solve(precision, x.mT @ y)
        square = (y - x @ slope).square().sum(0)
        fixed = root.diagonal().log().sum() + 0.5 * torch.logdet(precision)
        logs.append(-fixed - 0.5 * (_NUM - 2) * square.log())
        slopes.append(slope[1])
        variances.append(square / (_NUM - 2) * torch.linalg.inv(precision)[1, 1])
    weight, slope = torch.stack(logs).softmax(0), torch.stack(slopes)
    mean = (weight * slope).sum(0)
    variance = (weight * (torch.stack(variances) + (slope - mean).square())).sum(0)
    return mean.abs() < 1.645 * variance.sqrt()


def _seconds(size: int) -> float:
    generator = torch.Generator().manual_seed(0)
    times = (0.2 + torch.rand(size, generator=generator, dtype=torch.float64)).cumsum(0)
    kernel = ScaleKernel(MarkovFractionalKernel(0.4, num_steps=16384, dt=0.2)).double()

    def once() -> None:
        noise = torch.ones(1, dtype=times.dtype)
        covariance = kernel(times[:, None]).evaluate_kernel().add_diagonal(noise)
        MultivariateNormal(torch.zeros_like(times), covariance).log_prob(times.sin()).backward()

    once()
    return cpu_time(once, repeats=2)
