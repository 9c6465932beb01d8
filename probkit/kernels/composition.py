"""Sums, products and scalings of Markov kernels, which stay Markov.

A sum stacks the states; a product of independent processes has the covariance of the Kronecker
product of their states. With ``M_k = A_k P_k A_k'`` and ``P_k`` the marginal covariance before the
step, the product's noise ``(M_1 + Q_1) (x) (M_2 + Q_2) - M_1 (x) M_2`` is written without
subtraction as ``Q_1 (x) M_2 + M_1 (x) Q_2 + Q_1 (x) Q_2``, so it stays positive semi-definite.
"""

from __future__ import annotations

from functools import reduce
from operator import mul
from typing import cast

import torch
from gpytorch.constraints import Interval
from gpytorch.priors import Prior
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.kernels.constraints import log_positive
from probkit.kernels.markov import MarkovKernel, same_input
from probkit.statespace.discretization import kronecker
from probkit.statespace.types import LTISDE, Transitions

__all__ = ["MarkovProductKernel", "MarkovScaleKernel", "MarkovSumKernel"]


class _Composition(MarkovKernel):
    """Several Markov kernels of the same input column."""

    def __init__(self, *kernels: MarkovKernel) -> None:
        first = kernels[0]
        if not all(same_input(first, kernel) for kernel in kernels[1:]):
            raise ConfigurationError(
                message(
                    "The kernels see different input columns, so the result is not Markov",
                    where="kernels",
                    got=[kernel.active_dims for kernel in kernels],
                    expected="the same active_dims",
                    remedy="combine them with gpytorch.kernels.AdditiveKernel or ProductKernel",
                )
            )
        dtype = reduce(torch.promote_types, (kernel.dtype for kernel in kernels))
        super().__init__(active_dims=first.active_dims, dtype=dtype)
        self.kernels = torch.nn.ModuleList(kernels).to(dtype)

    @property
    def factors(self) -> list[MarkovKernel]:
        """The kernels combined here."""
        return [cast(MarkovKernel, kernel) for kernel in self.kernels]

    @property
    def is_stationary(self) -> bool:
        return all(kernel.is_stationary for kernel in self.factors)


class MarkovSumKernel(_Composition):
    """Sum of independent Markov processes: ``k_1 + k_2 + ...``, states stacked.

    Example:
        >>> from probkit.kernels import MaternKernel
        >>> (MaternKernel(0.5) + MaternKernel(1.5)).state_dimension
        3
    """

    @property
    def state_dimension(self) -> int:
        return sum(kernel.state_dimension for kernel in self.factors)

    def covariance(
        self, x1: Float[Tensor, "*batch #N #M"], x2: Float[Tensor, "*batch #N #M"]
    ) -> Float[Tensor, "*batch N M"]:
        first, *others = [kernel.covariance(x1, x2) for kernel in self.factors]
        return sum(others, first)

    def state_space(self) -> LTISDE:
        parts = [kernel.state_space() for kernel in self.factors]
        return LTISDE(
            F=_block_diagonal([part.F for part in parts]),
            L=_block_diagonal([part.L for part in parts]),
            Qc=_block_diagonal([part.Qc for part in parts]),
            H=self.output_map(),
            P_inf=_block_diagonal([part.P_inf for part in parts]),
        )

    def output_map(self) -> Float[Tensor, "*batch 1 s"]:
        maps = [kernel.output_map() for kernel in self.factors]
        batch = torch.broadcast_shapes(*(row.shape[:-2] for row in maps))
        return torch.cat([row.expand(*batch, *row.shape[-2:]) for row in maps], -1)

    def marginal_covariance(
        self, times: Float[Tensor, "*batch T"]
    ) -> Float[Tensor, "*batch T s s"]:
        return _block_diagonal([kernel.marginal_covariance(times) for kernel in self.factors])

    def transitions(self, times: Float[Tensor, "*batch T"]) -> Transitions:
        parts = [kernel.transitions(times) for kernel in self.factors]
        return Transitions(
            _block_diagonal([part.A for part in parts]), _block_diagonal([part.Q for part in parts])
        )

    def transitions_over(self, steps: Float[Tensor, "*batch T"]) -> Transitions:
        parts = [kernel.transitions_over(steps) for kernel in self.factors]
        return Transitions(
            _block_diagonal([part.A for part in parts]), _block_diagonal([part.Q for part in parts])
        )


class MarkovProductKernel(_Composition):
    """Product of Markov kernels: ``k_1 k_2 ...``, states combined by the Kronecker product.

    Example:
        >>> from probkit.kernels import CosineKernel, MaternKernel
        >>> (CosineKernel() * MaternKernel(1.5)).state_dimension
        4
    """

    @property
    def state_dimension(self) -> int:
        return reduce(mul, (kernel.state_dimension for kernel in self.factors), 1)

    def covariance(
        self, x1: Float[Tensor, "*batch #N #M"], x2: Float[Tensor, "*batch #N #M"]
    ) -> Float[Tensor, "*batch N M"]:
        first, *others = [kernel.covariance(x1, x2) for kernel in self.factors]
        return reduce(torch.mul, others, first)

    def state_space(self) -> LTISDE:
        """The SDE of the product; its noise has as many dimensions as states.

        Raises:
            ConfigurationError: a factor is not stationary, so that the noise depends on time.
        """
        if not self.is_stationary:
            raise ConfigurationError(
                message(
                    "A product with a non-stationary factor is no time-invariant SDE",
                    where="state_space",
                    remedy="use transitions(times), which is exact for it",
                )
            )
        return reduce(_product_sde, [kernel.state_space() for kernel in self.factors])

    def output_map(self) -> Float[Tensor, "*batch 1 s"]:
        return reduce(kronecker, [kernel.output_map() for kernel in self.factors])

    def marginal_covariance(
        self, times: Float[Tensor, "*batch T"]
    ) -> Float[Tensor, "*batch T s s"]:
        return reduce(kronecker, [kernel.marginal_covariance(times) for kernel in self.factors])

    def transitions(self, times: Float[Tensor, "*batch T"]) -> Transitions:
        times = self._as_times(times)
        parts = [
            (*kernel.transitions(times), kernel.marginal_covariance(times).roll(1, -3))
            for kernel in self.factors
        ]
        A, Q, _ = reduce(_product_step, parts)
        return Transitions(A, Q)

    def transitions_over(self, steps: Float[Tensor, "*batch T"]) -> Transitions:
        """Transitions of the product from those of its factors.

        Raises:
            ConfigurationError: a factor is not stationary.
        """
        if not self.is_stationary:
            raise ConfigurationError(
                message(
                    "A product with a non-stationary factor depends on the times, not the steps",
                    where="transitions_over",
                    remedy="use transitions(times)",
                )
            )
        parts = [
            (*kernel.transitions_over(steps), kernel.marginal_covariance(steps))
            for kernel in self.factors
        ]
        A, Q, _ = reduce(_product_step, parts)
        return Transitions(A, Q)


class MarkovScaleKernel(MarkovKernel):
    """``outputscale * base_kernel``: the counterpart of :class:`gpytorch.kernels.ScaleKernel`.

    Args:
        base_kernel: the kernel to scale.
        outputscale: initial variance; a tensor must broadcast to ``batch_shape``.
        outputscale_prior: prior on the variance.
        outputscale_constraint: positive by default.

    Example:
        >>> from probkit.kernels import MaternKernel
        >>> round(MarkovScaleKernel(MaternKernel(0.5), outputscale=3.0).outputscale.item(), 6)
        3.0
    """

    def __init__(
        self,
        base_kernel: MarkovKernel,
        *,
        outputscale: float | Tensor | None = None,
        outputscale_prior: Prior | None = None,
        outputscale_constraint: Interval | None = None,
        batch_shape: torch.Size | tuple[int, ...] | None = None,
    ) -> None:
        dtype, device = base_kernel.dtype, base_kernel.device
        super().__init__(
            active_dims=base_kernel.active_dims,
            batch_shape=base_kernel.batch_shape if batch_shape is None else batch_shape,
            dtype=dtype,
        )
        self.base_kernel = base_kernel
        raw = torch.zeros(self._batch_shape, dtype=dtype, device=device)
        self.register_parameter("raw_outputscale", torch.nn.Parameter(raw))
        constraint = log_positive() if outputscale_constraint is None else outputscale_constraint
        self.register_constraint("raw_outputscale", constraint.to(dtype))
        if outputscale_prior is not None:
            self.register_prior(
                "outputscale_prior",
                outputscale_prior.to(dtype),
                self._outputscale_param,
                self._outputscale_closure,
            )
        if outputscale is not None:
            self.outputscale = outputscale

    @property
    def outputscale(self) -> Float[Tensor, "*batch"]:
        """Variance by which the base kernel is multiplied."""
        return self.raw_outputscale_constraint.transform(self.raw_outputscale)

    @outputscale.setter
    def outputscale(self, value: float | Tensor) -> None:
        value = torch.as_tensor(
            value, dtype=self.raw_outputscale.dtype, device=self.raw_outputscale.device
        )
        self.initialize(raw_outputscale=self.raw_outputscale_constraint.inverse_transform(value))

    @property
    def is_stationary(self) -> bool:
        return self.base_kernel.is_stationary

    @property
    def state_dimension(self) -> int:
        return self.base_kernel.state_dimension

    def covariance(
        self, x1: Float[Tensor, "*batch #N #M"], x2: Float[Tensor, "*batch #N #M"]
    ) -> Float[Tensor, "*batch N M"]:
        return self.outputscale[..., None, None] * self.base_kernel.covariance(x1, x2)

    def state_space(self) -> LTISDE:
        base = self.base_kernel.state_space()
        scale = self.outputscale[..., None, None]
        return base._replace(Qc=scale * base.Qc, P_inf=scale * base.P_inf)

    def output_map(self) -> Float[Tensor, "*batch 1 s"]:
        return self.base_kernel.output_map()

    def marginal_covariance(
        self, times: Float[Tensor, "*batch T"]
    ) -> Float[Tensor, "*batch T s s"]:
        scale = self.outputscale[..., None, None, None]
        return scale * self.base_kernel.marginal_covariance(times)

    def transitions(self, times: Float[Tensor, "*batch T"]) -> Transitions:
        return self._scaled(self.base_kernel.transitions(times))

    def transitions_over(self, steps: Float[Tensor, "*batch T"]) -> Transitions:
        return self._scaled(self.base_kernel.transitions_over(steps))

    def _scaled(self, base: Transitions) -> Transitions:
        Q = self.outputscale[..., None, None, None] * base.Q
        return Transitions(base.A.expand(Q.shape), Q)

    def _outputscale_param(self, kernel: MarkovScaleKernel) -> Tensor:
        return kernel.outputscale

    def _outputscale_closure(self, kernel: MarkovScaleKernel, value: Tensor) -> None:
        kernel.outputscale = value


def _block_diagonal(blocks: list[Tensor]) -> Tensor:
    batch = torch.broadcast_shapes(*(block.shape[:-2] for block in blocks))
    num_columns = sum(block.shape[-1] for block in blocks)
    rows, before = [], 0
    for block in blocks:
        after = num_columns - before - block.shape[-1]
        rows.append(torch.nn.functional.pad(block, (before, after)).expand(*batch, -1, -1))
        before += block.shape[-1]
    return torch.cat(rows, -2)


_Step = tuple[Tensor, Tensor, Tensor]
"""transition, noise and the marginal covariance before the step"""


def _product_step(left: _Step, right: _Step) -> _Step:
    (A1, Q1, P1), (A2, Q2, P2) = left, right
    M1, M2 = A1 @ P1 @ A1.mT, A2 @ P2 @ A2.mT
    Q = kronecker(Q1, M2 + Q2) + kronecker(M1, Q2)
    return kronecker(A1, A2), 0.5 * (Q + Q.mT), kronecker(P1, P2)


def _product_sde(left: LTISDE, right: LTISDE) -> LTISDE:
    def identity(sde: LTISDE) -> Tensor:
        return torch.eye(sde.F.shape[-1], dtype=sde.F.dtype, device=sde.F.device)

    def source(sde: LTISDE) -> Tensor:
        return sde.L @ sde.Qc @ sde.L.mT

    F = kronecker(left.F, identity(right)) + kronecker(identity(left), right.F)
    return LTISDE(
        F=F,
        L=torch.eye(F.shape[-1], dtype=F.dtype, device=F.device).expand(F.shape),
        Qc=kronecker(source(left), right.P_inf) + kronecker(left.P_inf, source(right)),
        H=kronecker(left.H, right.H),
        P_inf=kronecker(left.P_inf, right.P_inf),
    )
