"""The law of the Hurst index in a guide: a logistic-normal on the support of its prior."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import transforms
from torch import Tensor

__all__ = ["HurstLaw"]


class HurstLaw(torch.nn.Module):
    """Trainable law of the Hurst index, centred at the middle of the prior's support.

    Args:
        prior: a distribution with a bounded support, () or (D,).
        sd: of the logit at the start.

    Example:
        >>> law = HurstLaw(dist.Uniform(torch.tensor(0.2, dtype=torch.float64), 0.8))
        >>> round(float(law.median.detach()), 3)
        0.5
    """

    low: Tensor
    width: Tensor

    def __init__(self, prior: torch.distributions.Distribution, *, sd: float = 0.3) -> None:
        super().__init__()
        shape = prior.batch_shape + prior.event_shape
        support: Any = prior.support
        low, high = (
            torch.as_tensor(bound, dtype=torch.float64).expand(shape).clone()
            for bound in (support.lower_bound, support.upper_bound)
        )
        self.register_buffer("low", low)
        self.register_buffer("width", high - low)
        self.loc = torch.nn.Parameter(torch.zeros_like(low))
        self.log_sd = torch.nn.Parameter(torch.full_like(low, math.log(sd)))

    def law(self) -> dist.TorchDistribution:
        """The distribution, () or an event (D,)."""
        parts = [transforms.SigmoidTransform(), transforms.AffineTransform(self.low, self.width)]
        found = dist.TransformedDistribution(dist.Normal(self.loc, self.log_sd.exp()), parts)
        return found.to_event(self.loc.dim())

    @property
    def median(self) -> Tensor:
        """Of each index."""
        return self.low + self.width * torch.sigmoid(self.loc)
