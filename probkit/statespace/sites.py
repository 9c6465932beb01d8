"""Sites from observations: Gaussian noise in natural parameters."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probkit.errors import DataError, message
from probkit.statespace.types import Sites

__all__ = ["observe"]


def observe(
    y: Float[Tensor, "*batch T"],
    noise: Tensor | float,
    mask: Bool[Tensor, "*batch T"] | None = None,
) -> Sites:
    """Sites of observations ``y_i = f_i + N(0, noise_i)`` of a scalar process.

    The log normaliser of a smoother given these sites is the log likelihood of the observed values.

    Args:
        y: observations; NaN marks a missing value.
        noise: noise variance, a scalar or one per observation (broadcast against ``y``).
        mask: True where a value was observed; combined with the NaN of ``y``.

    Raises:
        DataError: a noise variance that is not positive, or an infinite observation.

    Example:
        >>> sites = observe(torch.tensor([1.0, float("nan")]), 0.5)
        >>> sites.precision.flatten().tolist(), sites.linear.flatten().tolist()
        ([2.0, 0.0], [2.0, 0.0])
    """
    variance = torch.as_tensor(noise, dtype=y.dtype, device=y.device).expand_as(y)
    if not bool((variance > 0).all()):
        raise DataError(
            message("The noise variance must be positive", where="noise", expected="> 0")
        )
    seen = ~torch.isnan(y) if mask is None else mask & ~torch.isnan(y)
    values = torch.where(seen, y, 0.0)
    if not bool(torch.isfinite(values).all()):
        raise DataError(message("An observation is infinite", where="y", remedy="mask it"))
    precision = seen / variance
    linear = values / variance
    scale = -0.5 * (values * linear + seen * torch.log(2 * math.pi * variance))
    return Sites(precision[..., None, None], linear.unsqueeze(-1), scale.sum(-1))
