"""What the rows ask of the estimator, in one place: fits, scores, moments of f, parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from probkit.tensor import FunctionalTucker, TuckerPosterior

__all__ = [
    "Scores",
    "fit",
    "latent",
    "lengthscales",
    "noise_sd",
    "predict_mean",
    "ranks",
    "rmse",
    "scores",
]


class Scores(NamedTuple):
    """Errors and calibration on test entries, in the units of y."""

    rmse: float
    mae: float
    nll: float
    coverage: float
    """share of y inside the central 90 % interval"""


def fit(x: Tensor, y: Tensor, **settings: Any) -> FunctionalTucker:
    """A fitted estimator; everything not given is the default."""
    return FunctionalTucker(**settings).fit(x, y)


def predict_mean(model: FunctionalTucker, x: Tensor) -> Tensor:
    """Predictive means (Q,)."""
    return torch.as_tensor(model.predict(x))


def latent(model: FunctionalTucker, x: Tensor) -> tuple[Tensor, Tensor]:
    """Posterior mean and standard deviation of f, without the noise."""
    posterior = _posterior(model)
    mean, variance = posterior.moments(x)
    offset, scale = posterior.target_scaling
    return offset + scale * mean, scale * variance.sqrt()


def scores(model: FunctionalTucker, x: Tensor, y: Tensor) -> Scores:
    """Errors, mean negative log predictive density and coverage on test entries."""
    found = model.predict(x, quantiles=[0.05, 0.95])
    low, high = found["quantiles"]
    inside = ((y >= low) & (y <= high)).double().mean()
    error = found["mean"] - y
    return Scores(
        rmse(found["mean"], y), float(error.abs().mean()), -model.score(x, y), float(inside)
    )


def rmse(estimate: Tensor, truth: Tensor) -> float:
    """Root of the mean squared difference."""
    return float((estimate - truth).square().mean().sqrt())


def noise_sd(model: FunctionalTucker) -> float:
    """Noise scale in the units of y, from the mean noise precision."""
    return _posterior(model).noise_sd


def ranks(model: FunctionalTucker) -> list[int]:
    """Components of each mode."""
    return _posterior(model).tensors()["ranks"].tolist()


def lengthscales(model: FunctionalTucker) -> list[Tensor]:
    """Learned lengthscales (R_k,) of each mode in user units."""
    return [values["lengthscale"] for values in _posterior(model).hyperparameters()]


def _posterior(model: FunctionalTucker) -> TuckerPosterior:
    posterior = model.result_.posterior
    assert isinstance(posterior, TuckerPosterior)
    return posterior
