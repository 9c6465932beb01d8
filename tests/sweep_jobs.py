"""Jobs for the tests of sweeps: other processes import them by name."""

import os
import signal
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch

from probkit.infer import SVI, FitResult


def mean_model(y):
    mu = pyro.sample("mu", dist.Normal(y.new_zeros(()), 10.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def fit_mean(seed: int, steps: int = 5, log: str = "", fail: bool = False) -> FitResult:
    """A short fit; leaves a mark in ``log`` so that a test can count the runs."""
    if log:
        with Path(log).open("a", encoding="utf-8") as stream:
            stream.write(f"{seed}\n")
    if fail and seed == 1:
        raise ValueError("seed one is unlucky")
    y = torch.linspace(-1, 3, 20, dtype=torch.float64)
    engine = SVI(steps=steps, num_posterior_samples=20, num_diagnostic_samples=0)
    return engine.fit(mean_model, y, seed=seed)


def square(x: int) -> int:
    if x == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return x * x


def draw(size: int) -> torch.Tensor:
    return torch.arange(float(size))
