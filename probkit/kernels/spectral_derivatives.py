"""The joint kernel of a process with a mixture spectrum and of its derivatives, in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gpytorch.kernels import Kernel
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.kernels.spectral import SpectralMixtureKernel

__all__ = ["SpectralDerivativeKernel"]


class SpectralDerivativeKernel(Kernel):
    """Joint kernel of a process and its derivatives, for GPyTorch's multi-output models.

    Outputs are interleaved as in GPyTorch's ``RBFKernelGrad``: all orders of the first point come
    first.

    Args:
        base: the kernel of the process.
        orders: of differentiation, such as (0, 1, 2).

    Raises:
        ConfigurationError: an order twice of which is more than the kernel's smoothness.

    Example:
        >>> from probkit.kernels import SpectralMixtureKernel
        >>> kernel = SpectralDerivativeKernel(SpectralMixtureKernel(3), orders=(0, 2))
        >>> kernel(torch.zeros(4, 1, dtype=torch.float64)).shape
        torch.Size([8, 8])
    """

    def __init__(self, base: SpectralMixtureKernel, *, orders: Sequence[int] = (0, 1)) -> None:
        if not orders or min(orders) < 0 or 2 * max(orders) > base.max_order:
            raise ConfigurationError(
                message(
                    "The process does not have these derivatives",
                    where="orders",
                    got=tuple(orders),
                    expected=f"from 0 to {base.max_order // 2}",
                )
            )
        super().__init__(batch_shape=base.batch_shape)
        self.base, self.orders = base, tuple(orders)

    def num_outputs_per_input(self, x1: Tensor, x2: Tensor) -> int:
        """Number of orders."""
        return len(self.orders)

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **params: Any) -> Tensor:
        """Covariance ``(*batch, N K, M K)`` of K orders, or its diagonal."""
        if self.base.active_dims is not None:
            x1 = x1.index_select(-1, self.base.active_dims)
            x2 = x2.index_select(-1, self.base.active_dims)
        if diag:
            lag = (x1 - x2)[..., 0]
            parts = [(-1) ** a * self.base.lag_covariance(lag, 2 * a) for a in self.orders]
            return torch.stack(parts, -1).flatten(-2)
        blocks = torch.stack(
            [
                torch.stack([self.base.derivative(x1, x2, a, b) for b in self.orders], -1)
                for a in self.orders
            ],
            -3,
        )
        return blocks.flatten(-2).flatten(-3, -2)
