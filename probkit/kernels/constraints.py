"""The positive constraint of Markov kernels: hyper-parameters are optimised on the log scale."""

from __future__ import annotations

import math

import torch
from gpytorch.constraints import GreaterThan, Positive

__all__ = ["log_positive", "real_line"]


def log_positive() -> Positive:
    """Positive through ``exp``: a lengthscale may move over orders of magnitude in a few steps.

    GPyTorch's default (softplus) is linear for large values, where quasi-Newton steps crawl.

    Example:
        >>> round(float(log_positive().inverse_transform(torch.tensor(1.0))), 6)
        0.0
    """
    return Positive(transform=torch.exp, inv_transform=torch.log)


def real_line() -> GreaterThan:
    """No constraint: the parameter is the value itself.

    Example:
        >>> float(real_line().transform(torch.tensor(-1.5)))
        -1.5
    """
    return GreaterThan(-math.inf, transform=None, inv_transform=None)
