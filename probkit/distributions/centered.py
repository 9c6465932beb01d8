"""A prior whose unconstrained coordinate is measured from a given point, in given units.

Engines work on the real line, to which they map every unknown by the support of its distribution,
and start within a few units of zero. Where a posterior is a thousand times narrower than its prior,
or has several modes of which one is known to be the right one, that is far off. Here

    theta = T(c + s zeta),   T the map of the prior's own support,

so that zero stands for a chosen point and one for a chosen distance. The density of theta is that
of the prior; engines, samplers and guides need to know nothing.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import biject_to, transform_to
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import AffineTransform, ComposeTransform, Transform

__all__ = ["Centered"]

_SCALAR = torch.Size()


class _CenteredSupport(Constraint):
    """The support of a prior with the origin and unit of its unconstrained coordinate."""

    def __init__(self, base: Constraint, loc: Tensor, scale: Tensor) -> None:
        self.base, self.loc, self.scale = base, loc, scale
        self.is_discrete, self.event_dim = base.is_discrete, base.event_dim

    def check(self, value: Tensor) -> Tensor:
        found: Tensor = self.base.check(value)
        return found


class Centered(TorchDistribution):
    """The prior ``base``, to be explored around ``point``.

    Args:
        base: a distribution of a scalar.
        point: the value that stands at zero, inside the support.
        scale: one unit, measured in the base's own unconstrained coordinate.

    Example:
        >>> import pyro.distributions as dist
        >>> law = Centered(dist.Gamma(torch.tensor(2.0), 1.0), torch.tensor(5.0), torch.tensor(0.1))
        >>> float(biject_to(law.support)(torch.tensor(0.0))), law.log_prob(torch.tensor(5.0)).shape
        (5.0, torch.Size([]))
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {}

    def __init__(self, base: Any, point: Tensor, scale: Tensor) -> None:
        self.base = base
        self._loc = biject_to(base.support).inv(point).detach()
        self._scale = scale
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def support(self) -> Constraint:
        """The base's, with its coordinate moved."""
        return _CenteredSupport(self.base.support, self._loc, self._scale)

    @property
    def has_rsample(self) -> bool:
        """The base's."""
        return bool(self.base.has_rsample)

    def sample(self, sample_shape: torch.Size = _SCALAR) -> Tensor:
        """Draws of the base."""
        found: Tensor = self.base.sample(sample_shape)
        return found

    def rsample(self, sample_shape: torch.Size = _SCALAR) -> Tensor:
        """Reparametrised draws of the base."""
        found: Tensor = self.base.rsample(sample_shape)
        return found

    def log_prob(self, value: Tensor) -> Tensor:
        """The base's."""
        found: Tensor = self.base.log_prob(value)
        return found


def _moved(constraint: _CenteredSupport) -> Transform:
    shift = AffineTransform(constraint.loc, constraint.scale)
    return ComposeTransform([shift, biject_to(constraint.base)])


biject_to.register(_CenteredSupport, _moved)
transform_to.register(_CenteredSupport, _moved)
