"""Wiener and integrated Wiener kernels: random walks and trends without a stationary level.

With ``x = input / lengthscale >= 0``, ``m = min(x, x')`` and prior variances ``v`` of ``f(0)`` and
``w`` of the slope at 0::

    Wiener:             k = v + m
    integrated Wiener:  k = v + w x x' + m^3/3 + |x - x'| m^2/2

The variance of the increments grows by one per lengthscale.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ConfigurationError, DataError, message
from probkit.kernels.markov import MarkovKernel
from probkit.statespace.discretization import wiener_step
from probkit.statespace.types import LTISDE, Transitions

__all__ = ["IntegratedWienerKernel", "WienerKernel"]


class WienerKernel(MarkovKernel):
    """``initial_variance + min(x, x') / lengthscale`` for inputs at or after ``origin``.

    Args:
        initial_variance: prior variance of ``f(origin)``; 0 pins it.
        origin: where the process starts.
        **kwargs: see :class:`~probkit.kernels.markov.MarkovKernel`.

    Raises:
        ConfigurationError: a negative variance.

    Example:
        >>> kernel = WienerKernel()
        >>> kernel.lengthscale = 0.5
        >>> x = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
        >>> kernel(x).to_dense().tolist()
        [[2.0, 2.0], [2.0, 4.0]]
    """

    has_lengthscale = True
    _num_integrals = 0

    def __init__(
        self, *, initial_variance: float = 0.0, origin: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        _require_not_negative(initial_variance, "initial_variance")
        self._initial: tuple[float, ...] = (initial_variance,)
        self.origin = origin

    @property
    def is_stationary(self) -> bool:
        return False

    @property
    def state_dimension(self) -> int:
        return self._num_integrals + 1

    def covariance(
        self, x1: Float[Tensor, "*batch #N #M"], x2: Float[Tensor, "*batch #N #M"]
    ) -> Float[Tensor, "*batch N M"]:
        x1, x2 = self._scaled(x1), self._scaled(x2)
        return self._initial[0] + torch.minimum(x1, x2)

    def state_space(self) -> LTISDE:
        rate = 1 / self.lengthscale
        n = self.state_dimension
        identity = torch.eye(n, dtype=rate.dtype, device=rate.device)
        batch = rate.shape[:-2]
        return LTISDE(
            F=rate * torch.diag_embed(rate.new_ones(n - 1), 1),
            L=identity[:, -1:].expand(*batch, n, 1),
            Qc=rate,
            H=identity[:1].expand(*batch, 1, n),
            P_inf=torch.diag(rate.new_tensor(self._initial)).expand(*batch, n, n),
        )

    def marginal_covariance(
        self, times: Float[Tensor, "*batch T"]
    ) -> Float[Tensor, "*batch T s s"]:
        """Covariances of the state at each time.

        Raises:
            DataError: times before the origin.
        """
        x = (self._as_times(times) - self.origin) / self.lengthscale[..., 0]
        if bool((x < 0).any()):
            raise DataError(
                message(
                    "A Wiener process has no past before its origin",
                    where="times",
                    got=f"minimum {float(times.min())}",
                    expected=f">= {self.origin}",
                    remedy="set origin to the smallest coordinate",
                )
            )
        A, Q = wiener_step(x, self._num_integrals)
        return A @ torch.diag(x.new_tensor(self._initial)) @ A.mT + Q

    def transitions_over(self, steps: Float[Tensor, "*batch T"]) -> Transitions:
        return Transitions(*wiener_step(steps / self.lengthscale[..., 0], self._num_integrals))

    def _scaled(self, x: Tensor) -> Tensor:
        return (x - self.origin) / self.lengthscale


class IntegratedWienerKernel(WienerKernel):
    """Integral of a Wiener process: the cubic smoothing spline as a prior. State ``(f, l f')``.

    Args:
        initial_variance: prior variance of ``f(origin)``.
        initial_slope_variance: prior variance of ``lengthscale * f'(origin)``.
        **kwargs: see :class:`WienerKernel`.

    Raises:
        ConfigurationError: a negative variance.

    Example:
        >>> kernel = IntegratedWienerKernel()
        >>> kernel.lengthscale = 1.0
        >>> x = torch.tensor([[3.0]], dtype=torch.float64)
        >>> round(kernel(x).to_dense().item(), 6)
        9.0
    """

    _num_integrals = 1

    def __init__(
        self,
        *,
        initial_variance: float = 0.0,
        initial_slope_variance: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(initial_variance=initial_variance, **kwargs)
        _require_not_negative(initial_slope_variance, "initial_slope_variance")
        self._initial = (initial_variance, initial_slope_variance)

    def covariance(
        self, x1: Float[Tensor, "*batch #N #M"], x2: Float[Tensor, "*batch #N #M"]
    ) -> Float[Tensor, "*batch N M"]:
        x1, x2 = self._scaled(x1), self._scaled(x2)
        shorter = torch.minimum(x1, x2)
        wiggle = shorter**2 * (shorter / 3 + (x1 - x2).abs() / 2)
        return self._initial[0] + self._initial[1] * x1 * x2 + wiggle


def _require_not_negative(value: float, name: str) -> None:
    if value < 0:
        raise ConfigurationError(
            message("A variance must not be negative", where=name, got=value, expected=">= 0")
        )
