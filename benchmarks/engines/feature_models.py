"""Small models that together use what a Pyro model may contain, for the agreement row."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from benchmarks.engines.models import Case

__all__ = ["FEATURES"]


def plates(y: Tensor) -> None:
    """Nested plates, an unknown in each."""
    scale = pyro.sample("scale", dist.Gamma(2.0 + torch.zeros_like(y[0, 0]), 1.0))
    with pyro.plate("columns", y.shape[1]):
        a = pyro.sample("a", dist.Normal(torch.zeros_like(y[0]), scale))
        with pyro.plate("rows", y.shape[0]):
            b = pyro.sample("b", dist.LogNormal(torch.zeros_like(y), 0.5))
            pyro.sample("y", dist.StudentT(5.0, a, b), obs=y)


def masks(y: Tensor) -> None:
    """A mask and an observation mask: some of the data are missing."""
    keep = torch.arange(y.shape[0]) % 3 > 0
    mean = pyro.sample("mean", dist.Normal(torch.zeros_like(y[0, 0]), 2.0))
    with pyro.plate("columns", y.shape[1]), pyro.plate("rows", y.shape[0]):
        with poutine.mask(mask=keep[:, None]):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)
        pyro.sample("z", dist.Laplace(mean, 1.0), obs=y, obs_mask=keep[:, None].expand_as(y))


def scales(y: Tensor) -> None:
    """A likelihood that counts three times, and minibatches of the columns."""
    mean = pyro.sample("mean", dist.Normal(torch.zeros_like(y[0, 0]), 2.0))
    with pyro.plate("columns", y.shape[1], subsample_size=2) as index:
        level = pyro.sample("level", dist.Normal(mean, 1.0))
        with pyro.plate("rows", y.shape[0]), poutine.scale(scale=3.0):
            pyro.sample("y", dist.Normal(level, 1.0), obs=y[:, index])


def factors(y: Tensor) -> None:
    """A factor and a deterministic site."""
    mean = pyro.sample("mean", dist.Beta(2.0 + torch.zeros_like(y[0, 0]), 3.0))
    square = pyro.deterministic("square", mean.square())
    pyro.factor("penalty", -2.0 * square)
    with pyro.plate("columns", y.shape[1]), pyro.plate("rows", y.shape[0]):
        pyro.sample("y", dist.Normal(square, 1.0), obs=y)


_Y = torch.as_tensor(np.random.default_rng(1).normal(size=(6, 4)))

FEATURES = {
    model.__name__: Case(model.__name__, model, (_Y,), "AutoNormal", model)
    for model in (plates, masks, scales, factors)
}
