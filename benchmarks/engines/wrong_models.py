"""E6: wrong models, guides and data end in a typed error that names the site, by every engine."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from benchmarks.frame import Context, Line, row
from probkit.errors import ProbkitError
from probkit.infer import HMC, NUTS, SVI, Laplace
from probkit.infer.native.program import NativeFunction

__all__ = ["wrong_models"]

_F64 = {"dtype": torch.float64}
_X, _Y = (torch.linspace(-1, 1, 60, **_F64).reshape(20, 3), torch.linspace(-1, 1, 20, **_F64))
_ENGINES = (
    SVI(steps=50, compile="off"),
    SVI(steps=50, compile="on"),
    HMC(num_samples=5),
    NUTS(num_samples=5, num_warmup=5),
    Laplace(),
)
_PARTICLES = SVI(steps=50, num_particles=3, vectorize_particles=True)


def _weights() -> Tensor:
    w: Tensor = pyro.sample("w", dist.Normal(torch.zeros(3, **_F64), 1.0).to_event(1))
    return w


def _x_times_w(x: Tensor, y: Tensor) -> None:
    pyro.sample("y", dist.Normal(x @ _weights(), 1.0).to_event(1), obs=y)


def _complex(x: Tensor, y: Tensor) -> None:
    mean = x @ _weights()
    pyro.sample("y", dist.Normal(torch.complex(mean, mean), 1.0).to_event(1), obs=y)


def _no_plate(x: Tensor, y: Tensor) -> None:
    z = pyro.sample("z", dist.Normal(torch.zeros(20, **_F64), 1.0))
    with pyro.plate("rows", 20):
        pyro.sample("y", dist.Normal(z, 1.0), obs=y)


def _regression(x: Tensor, y: Tensor) -> None:
    w = _weights()
    with pyro.plate("rows", 20):
        pyro.sample("y", dist.Normal((x * w).sum(-1), 1.0), obs=y)


def _other_guide(x: Tensor, y: Tensor) -> None:
    pyro.sample("v", dist.Normal(pyro.param("p", torch.zeros(3, **_F64)), 1.0).to_event(1))


def _not_definite(x: Tensor, y: Tensor) -> None:
    scale = pyro.sample("scale", dist.LogNormal(torch.zeros((), **_F64), 0.1))
    covariance = torch.exp(-((y[:, None] - y) ** 2) / scale) - 1e-3 * torch.eye(20, **_F64)
    root = torch.linalg.cholesky(covariance)
    pyro.sample("y", dist.MultivariateNormal(torch.zeros_like(y), scale_tril=root), obs=y)


def _nan_gradient(x: Tensor, y: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(torch.zeros((), **_F64), 1.0))
    with pyro.plate("rows", 20):
        pyro.sample("y", dist.Normal(mean, 1.0 + (mean - mean).abs().sqrt()), obs=y)


_DATA = (_X, _Y)
_CASES: tuple[tuple[str, str, Callable[..., Any], tuple[Tensor, Tensor], tuple[Any, ...], str], ...]
_CASES = (
    ("broadcast", "x @ w by vectorised particles", _x_times_w, _DATA, (_PARTICLES,), "'w'|'y'"),
    ("complex", "complex location", _complex, _DATA, _ENGINES, "'w'|'y'"),
    ("plate", "unknown that misses its plate", _no_plate, _DATA, _ENGINES, "'z'"),
    ("shape", "data of wrong shape", _regression, (_X, _Y[:7]), _ENGINES, "'y'"),
    ("guide", "guide of another site", _regression, _DATA, (SVI(guide=_other_guide),), "'w'"),
    ("cholesky", "Cholesky that fails", _not_definite, _DATA, _ENGINES, "'scale'|'y'"),
    ("gradient", "NaN gradients", _nan_gradient, _DATA, _ENGINES, "'y'|gradient"),
)


@row("E6", "wrong models are caught")
def wrong_models(context: Context) -> Iterator[Line]:
    """The share of engines whose error is typed and names the site."""
    for key, what, model, data, engines, site in _CASES:
        caught = [_is_caught(partial(e.fit, model, data, seed=0), site) for e in engines]
        yield Line(key, f"{what}: share of {len(engines)} engines", sum(caught) / len(caught))
    function = NativeFunction(lambda t: (t.square().sum(), 2 * t), torch.ones(3, **_F64), ())
    caught_size = _is_caught(partial(function, torch.ones(4, **_F64)), r"\(4,\)")
    yield Line("size", "compiled graph fed with another size (1 = caught)", float(caught_size))


def _is_caught(run: Callable[[], Any], pattern: str) -> bool:
    try:
        run()
    except ProbkitError as error:
        return re.search(pattern, str(error)) is not None
    return False
