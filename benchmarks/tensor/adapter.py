"""What the rows ask of the estimator, in one place: fits, scores, the latent mean and its sd."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from probkit.tensor import FunctionalTucker

__all__ = ["Scores", "fit", "gaussian_nll", "latent", "predict_mean", "rmse", "scores"]


class Scores(NamedTuple):
    """Errors and calibration on test entries, in the units of y."""

    rmse: float
    mae: float
    nll: float
    coverage: float
    """share of y inside the central 90 % interval"""


def fit(x: Tensor, y: Tensor, *, seed: int = 0, **settings: Any) -> FunctionalTucker:
    """A fitted estimator; everything not given is the default."""
    return FunctionalTucker(seed=seed, **settings).fit(x, y)


def predict_mean(model: FunctionalTucker, x: Tensor) -> Tensor:
    return torch.as_tensor(model.predict(x))


def latent(model: FunctionalTucker, x: Tensor) -> tuple[Tensor, Tensor]:
    """Posterior mean and standard deviation of f, without the noise."""
    mean, sd = model.predict(x, return_sd=True, include_noise=False)
    return torch.as_tensor(mean), torch.as_tensor(sd)


def scores(model: FunctionalTucker, x: Tensor, y: Tensor) -> Scores:
    mean = predict_mean(model, x)
    low, high = torch.as_tensor(model.predict(x, quantiles=[0.05, 0.95]))
    inside = ((y >= low) & (y <= high)).double().mean()
    nll = -torch.as_tensor(model.result_.log_likelihood(x, y)).mean()
    error = mean - y
    return Scores(rmse(mean, y), float(error.abs().mean()), float(nll), float(inside))


def rmse(estimate: Tensor, truth: Tensor) -> float:
    return float((estimate - truth).square().mean().sqrt())


def gaussian_nll(y: Tensor, mean: Tensor, variance: Tensor) -> float:
    terms = torch.log(2 * math.pi * variance) + (y - mean).square() / variance
    return 0.5 * float(terms.mean())
