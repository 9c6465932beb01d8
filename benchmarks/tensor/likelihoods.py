"""T15: counts, labels and outliers against the truth that made them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Bernoulli, NegativeBinomial, Poisson

from benchmarks.frame import Context, Line, row
from benchmarks.tensor.adapter import fit, latent, rmse
from probkit.tensor.simulate import SimulatedTensor, simulate_functional_tucker

_SETTINGS: dict[str, Any] = {"rank": 2, "structure": "cp", "kernels": "matern32"}


@row("T15", "counts, labels, outliers")
def likelihoods(context: Context) -> Iterator[Line]:
    size = context.size(20_000, 4_000)
    for name, scale in (("poisson", 1.2), ("bernoulli", 2.5), ("negative_binomial", 1.0)):
        data, train = _case(size, likelihood=name, scale=scale)
        model = fit(data.x[train], data.y[train], likelihood=name, **_SETTINGS)
        y, f = data.y[~train], data.f[~train]
        nll = -model.score(data.x[~train], y)
        truth = -float(_log_probability(name, f, y).mean())
        yield Line(name, f"{name}: test NLL {nll:.4f} minus oracle's {truth:.4f}", nll - truth)
    clean = _outlier_error(context, 0.0, "gaussian")
    robust = _outlier_error(context, 0.05, "student_t")
    yield Line("outliers", "5 % outliers of 20 sd, Student-t: RMSE of f / sd", robust, clean)
    plain = _outlier_error(context, 0.05, "gaussian")
    yield Line("gaussian", "the same outliers, Gaussian fit", plain, clean)


def _outlier_error(context: Context, fraction: float, likelihood: str) -> float:
    data, train = _case(
        context.size(8_000, 2_000),
        noise=0.1,
        noise_is_relative=True,
        outlier_fraction=fraction,
    )
    model = fit(data.x[train], data.y[train], likelihood=likelihood, **_SETTINGS)
    estimate = latent(model, data.x[~train])[0]
    return rmse(estimate, data.f[~train]) / float(data.f.std())


def _case(num_train: int, **settings: Any) -> tuple[SimulatedTensor, Tensor]:
    total = num_train + num_train // 4
    data = simulate_functional_tucker(
        total, num_coordinates=(60, 80, 100), rank=2, nu=1.5, generator=0, **settings
    )
    return data, torch.arange(total) < num_train


def _log_probability(name: str, f: Tensor, y: Tensor) -> Tensor:
    """Log probability of y under the true parameters."""
    if name == "poisson":
        return Poisson(f.exp()).log_prob(y)
    if name == "bernoulli":
        return Bernoulli(logits=f).log_prob(y)
    size = torch.tensor(5.0, dtype=f.dtype)
    return NegativeBinomial(size, logits=f - size.log()).log_prob(y)
