"""The five models of the engine rows, in Pyro, with their data; float64 throughout.

Data come from ``numpy.random.default_rng(0)`` and are the same for every library; the NumPyro twins
are in ``numpyro_models``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

__all__ = ["CASES", "Case", "exact_regression"]

_ETA = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
_ETA_SD = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


@dataclass(frozen=True)
class Case:
    """A model with its data and guide.

    Args:
        name: short name.
        model: Pyro model, called with ``data``; its own minibatches included.
        data: tensors.
        guide: name of an autoguide.
        full: model for samplers, on all rows.
    """

    name: str
    model: Callable[..., Any]
    data: tuple[Tensor, ...]
    guide: str
    full: Callable[..., Any]


def _tensor(value: Any) -> Tensor:
    return torch.as_tensor(np.asarray(value), dtype=torch.float64)


def _zero(like: Tensor) -> Tensor:
    return torch.zeros((), dtype=like.dtype, device=like.device)


def regression(x: Tensor, y: Tensor) -> None:
    """200 x 5, noise sd .5 known: posterior and evidence in closed form."""
    w = pyro.sample("w", dist.Normal(_zero(x), 1.0).expand([x.shape[1]]).to_event(1))
    with pyro.plate("rows", x.shape[0]):
        pyro.sample("y", dist.Normal((x * w).sum(-1), 0.5), obs=y)


def eight_schools(y: Tensor, sd: Tensor) -> None:
    """Non-centred."""
    mu = pyro.sample("mu", dist.Normal(_zero(y), 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0 + _zero(y)))
    with pyro.plate("schools", y.shape[0]):
        eta = pyro.sample("eta", dist.Normal(_zero(y), 1.0))
        pyro.sample("y", dist.Normal(mu + tau * eta, sd), obs=y)


def logistic(x: Tensor, y: Tensor, *, batch: int | None = 256) -> None:
    """10 000 x 50 with an intercept; minibatches by the plate."""
    w = pyro.sample("w", dist.Normal(_zero(x), 1.0).expand([x.shape[1]]).to_event(1))
    b = pyro.sample("b", dist.Normal(_zero(x), 1.0))
    with pyro.plate("rows", x.shape[0], subsample_size=batch) as rows:
        logits = (x[rows] * w).sum(-1) + b
        pyro.sample("y", dist.Bernoulli(logits=logits), obs=y[rows])


def logistic_full(x: Tensor, y: Tensor) -> None:
    """The same on all rows."""
    w = pyro.sample("w", dist.Normal(_zero(x), 1.0).expand([x.shape[1]]).to_event(1))
    b = pyro.sample("b", dist.Normal(_zero(x), 1.0))
    with pyro.plate("rows", x.shape[0]):
        logits = (x @ w.unsqueeze(-1)).squeeze(-1) + b
        pyro.sample("y", dist.Bernoulli(logits=logits), obs=y)


def gp(x: Tensor, y: Tensor) -> None:
    """100 points, squared-exponential kernel, Cholesky factor inside."""
    lengthscale = pyro.sample("lengthscale", dist.LogNormal(_zero(x), 1.0))
    outputscale = pyro.sample("outputscale", dist.LogNormal(_zero(x), 1.0))
    noise = pyro.sample("noise", dist.LogNormal(_zero(x) - 2.0, 1.0))
    squares = (x.unsqueeze(-1) - x).square()
    eye = torch.eye(x.shape[0], dtype=x.dtype, device=x.device)
    scale = lengthscale[..., None, None].square()
    covariance = outputscale[..., None, None] * torch.exp(-0.5 * squares / scale)
    covariance = covariance + (noise[..., None, None] + 1e-6) * eye
    law = dist.MultivariateNormal(torch.zeros_like(x), covariance_matrix=covariance)
    pyro.sample("y", law, obs=y)


def hierarchical(y: Tensor) -> None:
    """1 000 groups of 5 observations, centred."""
    mu = pyro.sample("mu", dist.Normal(_zero(y), 5.0))
    tau = pyro.sample("tau", dist.HalfNormal(2.0 + _zero(y)))
    sigma = pyro.sample("sigma", dist.HalfNormal(2.0 + _zero(y)))
    with pyro.plate("groups", y.shape[1]):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        with pyro.plate("within", y.shape[0]):
            pyro.sample("y", dist.Normal(theta, sigma), obs=y)


def _data() -> dict[str, tuple[Tensor, ...]]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5))
    y = x @ rng.normal(size=5) + 0.5 * rng.normal(size=200)
    found = {"regression": (x, y), "schools": (_ETA, _ETA_SD)}
    x = rng.normal(size=(10_000, 50))
    logits = x @ (0.5 * rng.normal(size=50)) + 0.3
    found["logistic"] = (x, (rng.random(10_000) < 1 / (1 + np.exp(-logits))).astype(float))
    x = np.sort(rng.random(100)) * 10
    found["gp"] = (x, np.sin(x) + 0.2 * rng.normal(size=100))
    theta = 1.0 + 0.8 * rng.normal(size=1000)
    found["hierarchical"] = (theta + 1.2 * rng.normal(size=(5, 1000)),)
    return {name: tuple(map(_tensor, arrays)) for name, arrays in found.items()}


def exact_regression(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Posterior mean and covariance of the regression's weights."""
    precision = x.mT @ x / 0.25 + torch.eye(x.shape[1], dtype=x.dtype)
    covariance = torch.linalg.inv(precision)
    return covariance @ (x.mT @ y) / 0.25, covariance


_DATA = _data()

CASES: dict[str, Case] = {
    case.name: case
    for case in (
        Case("regression", regression, _DATA["regression"], "AutoMultivariateNormal", regression),
        Case("schools", eight_schools, _DATA["schools"], "AutoNormal", eight_schools),
        Case("logistic", logistic, _DATA["logistic"], "AutoNormal", logistic_full),
        Case("gp", gp, _DATA["gp"], "AutoNormal", gp),
        Case("hierarchical", hierarchical, _DATA["hierarchical"], "AutoNormal", hierarchical),
    )
}
