"""C1: Poisson counts in a Pyro model, the cost of a step of SVI and its growth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal
from torch import Tensor
from torch.distributions import constraints

from benchmarks.frame import Context, Line, cpu_time, row
from probkit.distributions import MarkovGaussianProcess
from probkit.infer import pyro_seed
from probkit.kernels import MaternKernel


@row("C1", "Poisson counts, one step of SVI: MarkovGaussianProcess and plain Pyro")
def cost(context: Context) -> Iterator[Line]:
    few, many = context.size(1000, 100), context.size(8000, 800)
    small, large = (_seconds(*_markov(n), TraceMeanField_ELBO()) for n in (few, many))
    dense = _seconds(*_dense(few), Trace_ELBO())
    yield Line("step", f"{few} bins: CPU s a step (baseline: plain Pyro)", small, dense)
    yield Line("growth", f"{many} bins over {few}: growth of a step", large / small)


def _seconds(model: Callable[..., Any], guide: Any, counts: Tensor, elbo: Any) -> float:
    with pyro_seed(0):
        pyro.clear_param_store()
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), elbo)
        svi.step(counts)
        spent = cpu_time(lambda: svi.step(counts), repeats=3)
        pyro.clear_param_store()
    return spent


def _markov(size: int) -> tuple[Callable[..., Any], Callable[..., Any], Tensor]:
    kernel, times, counts = _problem(size)

    def model(counts: Tensor) -> None:
        _counts(pyro.sample("f", MarkovGaussianProcess(kernel, times)), counts)

    def guide(counts: Tensor) -> None:
        target = pyro.param("target", lambda: torch.log(counts + 0.5))
        noise = pyro.param("noise", lambda: 1 / (counts + 0.5), constraint=constraints.positive)
        pyro.sample("f", MarkovGaussianProcess(kernel, times).observe(target, noise))

    return model, guide, counts


def _dense(size: int) -> tuple[Callable[..., Any], Any, Tensor]:
    kernel, times, counts = _problem(size)

    def model(counts: Tensor) -> None:
        covariance = kernel(times).to_dense() + 1e-8 * torch.eye(size, dtype=times.dtype)
        _counts(pyro.sample("f", dist.MultivariateNormal(0 * times, covariance)), counts)

    return model, AutoMultivariateNormal(model), counts


def _counts(f: Tensor, counts: Tensor) -> None:
    with pyro.plate("bins", len(counts)):
        pyro.sample("counts", dist.Poisson(f.exp()), obs=counts)


def _problem(size: int) -> tuple[MaternKernel, Tensor, Tensor]:
    times = 0.1 * torch.arange(size, dtype=torch.float64)
    rate = 2 + torch.sin(times / 3)
    counts = torch.poisson(rate, generator=torch.Generator().manual_seed(0))
    kernel = MaternKernel(1.5)
    kernel.lengthscale = 3.0
    return kernel.requires_grad_(False), times, counts
