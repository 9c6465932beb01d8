"""The circular complex normal distribution."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from jaxtyping import Complex, Float
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

from probkit.errors import DtypeError, message

__all__ = ["ComplexNormal", "complex_scalar", "complex_tensor"]


class _ComplexNumbers(constraints.Constraint):
    """Complex or real numbers that are not NaN."""

    event_dim = 0

    def check(self, value: Tensor) -> Tensor:
        return value == value  # NaN differs from itself


complex_scalar = _ComplexNumbers()


def complex_tensor(num_dims: int) -> constraints.Constraint:
    """The support of a distribution over complex tensors of so many event dimensions."""
    found: constraints.Constraint = constraints.independent(complex_scalar, num_dims)
    return found


class ComplexNormal(TorchDistribution):
    """``x = loc + e`` with circular ``e``: real and imaginary part independent, variance s^2 / 2.

        log p(x) = -abs(x - loc)^2 / s^2 - 2 log s - log pi,   s^2 = E abs(x - loc)^2

    Args:
        loc: mean, complex.
        scale: s > 0, real, that of the whole number and not of its parts.
        validate_args: check the arguments.

    Raises:
        DtypeError: a mean that is not complex, or a scale that is.

    Example:
        >>> law = ComplexNormal(torch.zeros(3, dtype=torch.complex128), torch.ones(3).double())
        >>> round(law.log_prob(torch.zeros(3, dtype=torch.complex128))[0].item(), 4)
        -1.1447
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "loc": complex_scalar,
        "scale": constraints.positive,
    }
    support = complex_scalar
    has_rsample = True

    def __init__(
        self,
        loc: Complex[Tensor, "*batch"],
        scale: Float[Tensor, "*batch"] | float,
        *,
        validate_args: bool | None = None,
    ) -> None:
        scale = torch.as_tensor(scale, device=loc.device)
        if not loc.is_complex() or scale.is_complex():
            raise DtypeError(
                message(
                    "A circular normal has a complex mean and a real scale",
                    where="loc, scale",
                    got=f"{loc.dtype}, {scale.dtype}",
                    remedy="take pyro.distributions.Normal for real numbers",
                )
            )
        self.loc, self.scale = broadcast_all(loc, scale.to(loc.real.dtype))
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: ComplexNormal | None = None) -> ComplexNormal:
        """The same law with more batch dimensions."""
        new = self._get_checked_instance(ComplexNormal, _instance)
        batch_shape = torch.Size(batch_shape)
        new.loc, new.scale = self.loc.expand(batch_shape), self.scale.expand(batch_shape)
        super(ComplexNormal, new).__init__(batch_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Complex[Tensor, "*batch"]:
        return self.loc

    @property
    def variance(self) -> Float[Tensor, "*batch"]:
        """E abs(x - loc)^2, both parts together."""
        return self.scale.square()

    def rsample(self, sample_shape: Any = ()) -> Complex[Tensor, "*sample"]:
        """Reparametrised draws."""
        shape = self._extended_shape(torch.Size(sample_shape))
        unit = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + self.scale * unit  # torch's complex unit is circular of variance one

    def log_prob(self, value: Complex[Tensor, "*sample"]) -> Float[Tensor, "*sample"]:
        """Log density, with respect to area in the complex plane."""
        if self._validate_args:
            self._validate_sample(value)
        difference = value - self.loc
        square = difference.real.square() + difference.imag.square()
        return -square / self.scale.square() - 2 * self.scale.log() - math.log(math.pi)

    def entropy(self) -> Float[Tensor, "*batch"]:
        """1 + log(pi s^2)."""
        return 1 + math.log(math.pi) + 2 * self.scale.log()
