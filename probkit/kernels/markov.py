"""Kernels of Markov processes: ordinary GPyTorch kernels that also know their state space."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from copy import deepcopy
from typing import Any, cast

import torch
from gpytorch.constraints import Interval
from gpytorch.kernels import Kernel
from gpytorch.priors import Prior
from jaxtyping import Float
from torch import Tensor
from torch.nn import ModuleList

from probkit.errors import ConfigurationError, ShapeError, message
from probkit.kernels.constraints import log_positive
from probkit.statespace.discretization import discretize, steps_between, with_initial
from probkit.statespace.types import LTISDE, Transitions

__all__ = ["MarkovKernel", "same_input"]


class MarkovKernel(Kernel):
    r"""Base class: ``k(x, x') = H Cov(z(x), z(x')) H'`` for a Markov process ``z`` on a line.

    Use it as any :class:`gpytorch.kernels.Kernel` (priors, constraints, ``batch_shape``,
    ``active_dims``, indexing, ``+`` and ``*``, which stay Markov between Markov kernels). A
    subclass gives ``covariance``, ``state_space`` and ``state_dimension``, and
    ``transitions_over`` where a closed form beats the generic discretisation. Inputs have one
    column: select it with ``active_dims``.

    Args:
        batch_shape: independent copies, such as one per component; every parameter gets it.
        active_dims: the one input column that the kernel sees.
        lengthscale_prior: prior on the lengthscale.
        lengthscale_constraint: positive by default.
        dtype: of the parameters; float64 by default.

    Raises:
        ConfigurationError: ``ard_num_dims`` above one, or several ``active_dims``.
    """

    def __init__(
        self,
        *,
        batch_shape: torch.Size | tuple[int, ...] = (),
        active_dims: tuple[int, ...] | Tensor | None = None,
        ard_num_dims: int | None = None,
        lengthscale_prior: Prior | None = None,
        lengthscale_constraint: Interval | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        if ard_num_dims not in (None, 1):
            raise ConfigurationError(
                message(
                    "A Markov kernel lives on one input dimension",
                    where="ard_num_dims",
                    got=ard_num_dims,
                    expected="None or 1",
                    remedy="multiply kernels with different active_dims for several dimensions",
                )
            )
        if active_dims is not None and len(active_dims) != 1:
            raise ConfigurationError(
                message(
                    "A Markov kernel lives on one input dimension",
                    where="active_dims",
                    got=tuple(active_dims),
                    expected="one column",
                )
            )
        super().__init__(
            ard_num_dims=ard_num_dims,
            batch_shape=torch.Size(batch_shape),
            active_dims=active_dims,
            lengthscale_prior=lengthscale_prior,
            lengthscale_constraint=lengthscale_constraint
            or (log_positive() if self.has_lengthscale else None),
        )
        self.to(dtype)

    @property
    @abstractmethod
    def state_dimension(self) -> int:
        """Number of states ``s`` of the process."""

    @abstractmethod
    def covariance(
        self, x1: Float[Tensor, "*batch #N #M"], x2: Float[Tensor, "*batch #N #M"]
    ) -> Float[Tensor, "*batch N M"]:
        """``k(x1, x2)`` elementwise on broadcast coordinates, free of data-dependent branches."""

    @abstractmethod
    def state_space(self) -> LTISDE:
        """The process as a linear SDE with batch shape ``batch_shape``."""

    @property
    def is_stationary(self) -> bool:
        return True

    def output_map(self) -> Float[Tensor, "*batch 1 s"]:
        """``H`` in ``f = H z``."""
        return self.state_space().H

    def marginal_covariance(
        self, times: Float[Tensor, "*batch T"]
    ) -> Float[Tensor, "*batch T s s"]:
        """Prior covariance of the state at each of the ``times``."""
        stationary = self.state_space().P_inf.unsqueeze(-3)
        batch = torch.broadcast_shapes(stationary.shape[:-3], times.shape[:-1])
        return stationary.expand(*batch, times.shape[-1], *stationary.shape[-2:])

    def transitions(self, times: Float[Tensor, "*batch T"]) -> Transitions:
        """The process at sorted ``times`` as a Markov chain.

        Args:
            times: sorted coordinates; leading dimensions broadcast with ``batch_shape``.

        Returns:
            ``A`` and ``Q`` of shape ``(*batch, T, s, s)``; ``A[..., 0]`` is zero and ``Q[..., 0]``
            the prior covariance at ``times[..., 0]``. Differentiable in the hyper-parameters.

        Raises:
            DataError: times that are not finite or not sorted.
        """
        times = self._as_times(times)
        A, Q = self.transitions_over(steps_between(times))
        return with_initial(A, Q, self.marginal_covariance(times[..., :1])[..., 0, :, :])

    def transitions_over(self, steps: Float[Tensor, "*batch T"]) -> Transitions:
        """``A`` and ``Q`` of shape ``(*batch, T, s, s)`` for given steps ``>= 0``."""
        return discretize(self.state_space(), steps)

    def forward(
        self,
        x1: Float[Tensor, "*batch N 1"],
        x2: Float[Tensor, "*batch M 1"],
        diag: bool = False,
        last_dim_is_batch: bool = False,
        **params: Any,
    ) -> Tensor:
        """Dense covariance ``(*batch, N, M)``, or its diagonal ``(*batch, N)``.

        Raises:
            ShapeError: inputs of more than one dimension.
        """
        if last_dim_is_batch or x1.shape[-1] != 1 or x2.shape[-1] != 1:
            raise ShapeError(
                message(
                    f"{type(self).__name__} takes one input column",
                    where="x1, x2",
                    got=f"{tuple(x1.shape)} and {tuple(x2.shape)}",
                    expected="(..., N, 1)",
                    remedy="choose the column with active_dims=(index,)",
                )
            )
        if diag:
            return self.covariance(x1, x2).squeeze(-1)
        return self.covariance(x1, x2.mT)

    def expand_batch(self, *sizes: Any) -> MarkovKernel:
        """A kernel with every parameter expanded to a larger batch shape."""
        shape = torch.Size(sizes[0] if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes)
        if shape == self.batch_shape:
            return self
        return self._map_batch(
            lambda value, num_event: value.expand(*shape, *value.shape[value.dim() - num_event :]),
            lambda kernel: kernel.expand_batch(shape),
            shape,
        )

    def __getitem__(self, index: Any) -> MarkovKernel:
        batch = self.batch_shape
        if len(batch) == 0:
            return self
        index = index if isinstance(index, tuple) else (index,)
        event = (slice(None),) if any(entry is Ellipsis for entry in index) else ()
        return self._map_batch(
            lambda value, num_event: value[index + event * num_event],
            lambda kernel: kernel.expand_batch(batch)[index],
            torch.empty(batch, device="meta")[index].shape,
        )

    def __add__(self, other: Any) -> Kernel:
        from probkit.kernels.composition import MarkovSumKernel

        if isinstance(other, MarkovKernel) and same_input(self, other):
            return MarkovSumKernel(*_terms(self, MarkovSumKernel), *_terms(other, MarkovSumKernel))
        return super().__add__(other)

    def __mul__(self, other: Any) -> Kernel:
        from probkit.kernels.composition import MarkovProductKernel, MarkovScaleKernel

        if isinstance(other, MarkovKernel) and same_input(self, other):
            return MarkovProductKernel(
                *_terms(self, MarkovProductKernel), *_terms(other, MarkovProductKernel)
            )
        if isinstance(other, int | float):
            return MarkovScaleKernel(self, outputscale=float(other))
        return super().__mul__(other)

    def __rmul__(self, other: Any) -> Kernel:
        return self * other

    def _map_batch(
        self,
        map_value: Callable[[Tensor, int], Tensor],
        map_kernel: Callable[[MarkovKernel], MarkovKernel],
        batch_shape: torch.Size,
    ) -> MarkovKernel:
        """Copy with batch dimensions changed: upstream would index ``active_dims`` as well."""
        num_batch = len(self._batch_shape)
        new = deepcopy(self)
        for parameter in new.parameters(recurse=False):
            parameter.data = map_value(parameter.data, parameter.dim() - num_batch)
        for name, buffer in list(new.named_buffers(recurse=False)):
            if name != "active_dims":
                setattr(new, name, map_value(buffer, buffer.dim() - num_batch))
        for name, child in list(new.named_children()):
            if isinstance(child, MarkovKernel):
                setattr(new, name, map_kernel(child))
            elif isinstance(child, ModuleList):
                setattr(
                    new,
                    name,
                    ModuleList(map_kernel(cast(MarkovKernel, kernel)) for kernel in child),
                )
        new.batch_shape = batch_shape
        return new

    def _set_lengthscale(self, value: float | Tensor) -> None:
        # upstream rounds a Python number to float32 on the way
        if self.has_lengthscale:
            raw = self.raw_lengthscale
            value = torch.as_tensor(value, dtype=raw.dtype, device=raw.device)
        super()._set_lengthscale(value)

    def _as_times(self, times: Tensor) -> Tensor:
        return times.to(self.dtype) if times.dtype != self.dtype else times


def same_input(left: MarkovKernel, right: MarkovKernel) -> bool:
    """Whether two kernels see the same input column.

    Example:
        >>> from probkit.kernels import MaternKernel
        >>> same_input(MaternKernel(0.5), MaternKernel(0.5, active_dims=(1,)))
        False
    """
    first, second = left.active_dims, right.active_dims
    if first is None or second is None:
        return first is second
    return bool(torch.equal(first.cpu(), second.cpu()))


def _terms(kernel: MarkovKernel, kind: type) -> list[MarkovKernel]:
    """Operands of a sum or product that can be merged into a longer one."""
    return list(kernel.kernels) if type(kernel) is kind else [kernel]
