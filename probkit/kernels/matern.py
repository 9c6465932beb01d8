"""Half-integer Matérn kernels with exact transitions."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.kernels.markov import MarkovKernel
from probkit.statespace.matern import matern_noise, matern_sde, matern_step, num_matern_states
from probkit.statespace.types import LTISDE, Transitions

__all__ = ["MaternKernel"]


class MaternKernel(MarkovKernel):
    r"""Matérn kernel of variance one, ``nu`` in {1/2, 3/2, 5/2, 7/2}.

    With ``x = sqrt(2 nu) |d| / lengthscale`` it is ``exp(-x)`` times ``1``, ``1 + x``,
    ``1 + x + x^2/3`` or ``1 + x + 2 x^2/5 + x^3/15``. The state ``(f, f'/lam, ...)`` with
    ``lam = sqrt(2 nu) / lengthscale`` has ``nu + 1/2`` entries.

    Args:
        nu: smoothness.
        **kwargs: see :class:`~probkit.kernels.markov.MarkovKernel`.

    Raises:
        ConfigurationError: another ``nu``.

    Example:
        >>> kernel = MaternKernel(1.5, batch_shape=(3,))
        >>> kernel.transitions(torch.linspace(0, 1, 5)).A.shape
        torch.Size([3, 5, 2, 2])
    """

    has_lengthscale = True

    def __init__(self, nu: float = 2.5, **kwargs: Any) -> None:
        self._num_states = num_matern_states(nu)
        super().__init__(**kwargs)
        self.nu = nu

    @property
    def state_dimension(self) -> int:
        return self._num_states

    def covariance(
        self, x1: Float[Tensor, "*batch #N #M"], x2: Float[Tensor, "*batch #N #M"]
    ) -> Float[Tensor, "*batch N M"]:
        x = (x1 - x2).abs() * (math.sqrt(2 * self.nu) / self.lengthscale)
        polynomial = torch.ones_like(x)
        for coefficient in reversed(_COEFFICIENTS[self._num_states]):
            polynomial = 1 + coefficient * x * polynomial
        return polynomial * torch.exp(-x)

    def state_space(self) -> LTISDE:
        return matern_sde(self.nu, self.lengthscale[..., 0, 0])

    def transitions_over(self, steps: Float[Tensor, "*batch T"]) -> Transitions:
        x = steps * (math.sqrt(2 * self.nu) / self.lengthscale[..., 0])
        return Transitions(matern_step(self.nu, x), matern_noise(self.nu, x))


_COEFFICIENTS: dict[int, tuple[float, ...]] = {
    1: (),
    2: (1.0,),
    3: (1.0, 1 / 3),
    4: (1.0, 2 / 5, 1 / 6),
}
"""ratios of successive coefficients of the polynomial that multiplies ``exp(-x)``"""
