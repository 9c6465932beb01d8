"""The five models of the engine rows in NumPyro: same sites, priors and data as in ``models``.

jax and numpyro come with the ``bench`` extra and are imported by :func:`numpyro_case` only.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks.engines.models import CASES
from benchmarks.frame import Unavailable

__all__ = ["NumPyroCase", "numpyro_case"]

_XLA = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


@dataclass(frozen=True)
class NumPyroCase:
    """The NumPyro twin of a ``Case``: ``model`` for SVI, ``full`` for samplers, jax arrays.

    ``with_replacement`` is ``model`` with minibatches drawn with replacement, where it has any.
    """

    name: str
    model: Callable[..., Any]
    data: tuple[Any, ...]
    guide: str
    full: Callable[..., Any]
    with_replacement: Callable[..., Any]


def numpyro_case(name: str) -> NumPyroCase:
    """The twin of ``CASES[name]`` in float64 on one CPU thread.

    Raises:
        Unavailable: numpyro is not installed.
    """
    if find_spec("numpyro") is None:
        raise Unavailable("needs numpyro: pip install probkit[bench]")
    os.environ.setdefault("XLA_FLAGS", _XLA)  # read when jax starts
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    case = CASES[name]
    model, full = _models()[name]
    data = tuple(jnp.asarray(np.asarray(tensor.cpu())) for tensor in case.data)
    other = _logistic_with_replacement if name == "logistic" else model
    return NumPyroCase(name, model, data, case.guide, full, other)


def _models() -> dict[str, tuple[Callable[..., Any], Callable[..., Any]]]:
    """(for SVI, for samplers) by name."""

    def logistic_full(x: Any, y: Any) -> None:
        _logistic(x, y, None)

    def logistic(x: Any, y: Any) -> None:
        _logistic(x, y, 256)

    return {
        "regression": (_regression, _regression),
        "schools": (_eight_schools, _eight_schools),
        "logistic": (logistic, logistic_full),
        "gp": (_gp, _gp),
        "hierarchical": (_hierarchical, _hierarchical),
    }


def _regression(x: Any, y: Any) -> None:
    import numpyro
    import numpyro.distributions as dist

    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ w, 0.5), obs=y)


def _eight_schools(y: Any, sd: Any) -> None:
    import numpyro
    import numpyro.distributions as dist

    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", y.shape[0]):
        eta = numpyro.sample("eta", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mu + tau * eta, sd), obs=y)


def _logistic(x: Any, y: Any, batch: int | None) -> None:
    import numpyro
    import numpyro.distributions as dist

    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", x.shape[0], subsample_size=batch) as rows:
        features, labels = (x, y) if batch is None else (x[rows], y[rows])
        numpyro.sample("y", dist.Bernoulli(logits=features @ w + b), obs=labels)


def _logistic_with_replacement(x: Any, y: Any) -> None:
    import jax
    import numpyro
    import numpyro.distributions as dist

    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    rows = jax.random.randint(numpyro.prng_key(), (256,), 0, x.shape[0])
    with numpyro.handlers.scale(scale=x.shape[0] / 256), numpyro.plate("rows", 256):
        numpyro.sample("y", dist.Bernoulli(logits=x[rows] @ w + b), obs=y[rows])


def _gp(x: Any, y: Any) -> None:
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    lengthscale = numpyro.sample("lengthscale", dist.LogNormal(0.0, 1.0))
    outputscale = numpyro.sample("outputscale", dist.LogNormal(0.0, 1.0))
    noise = numpyro.sample("noise", dist.LogNormal(-2.0, 1.0))
    squares = jnp.square(x[:, None] - x)
    covariance = outputscale * jnp.exp(-0.5 * squares / jnp.square(lengthscale))
    covariance = covariance + (noise + 1e-6) * jnp.eye(x.shape[0])
    law = dist.MultivariateNormal(jnp.zeros_like(x), covariance_matrix=covariance)
    numpyro.sample("y", law, obs=y)


def _hierarchical(y: Any) -> None:
    import numpyro
    import numpyro.distributions as dist

    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfNormal(2.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0))
    with numpyro.plate("groups", y.shape[1]):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        with numpyro.plate("within", y.shape[0]):
            numpyro.sample("y", dist.Normal(theta, sigma), obs=y)
