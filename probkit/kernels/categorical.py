"""The kernel of a coordinate without order: categories are independent a priori."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.kernels.markov import MarkovKernel
from probkit.statespace.types import LTISDE, Transitions

__all__ = ["CategoricalKernel"]


class CategoricalKernel(MarkovKernel):
    """``1`` where two codes are equal and ``0`` elsewhere: one independent state per category.

    As a Markov chain over sorted codes, each step to another code forgets everything: ``A = 0`` and
    ``Q = 1``. It has no hyper-parameter; the amplitude is that of the model.

    Args:
        **kwargs: see :class:`~probkit.kernels.markov.MarkovKernel`.

    Example:
        >>> CategoricalKernel().transitions(torch.tensor([0.0, 1.0, 2.0])).Q.flatten().tolist()
        [1.0, 1.0, 1.0]
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        unit = torch.ones(*self._batch_shape, 1, 1, dtype=kwargs.get("dtype", torch.float64))
        self.register_buffer("unit_variance", unit)

    @property
    def dtype(self) -> torch.dtype:
        dtypes = {self.unit_variance.dtype, *(value.dtype for value in self.parameters())}
        if len(dtypes) > 1:
            raise RuntimeError(f"The kernel's parameters have multiple dtypes: {dtypes}.")
        return dtypes.pop()

    @property
    def device(self) -> torch.device:
        return self.unit_variance.device

    @property
    def state_dimension(self) -> int:
        return 1

    def covariance(
        self, x1: Float[Tensor, "*batch #N #M"], x2: Float[Tensor, "*batch #N #M"]
    ) -> Float[Tensor, "*batch N M"]:
        return self.unit_variance * (x1 == x2)

    def state_space(self) -> LTISDE:
        """Categories lie on no line.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            message(
                "Independent categories are no stochastic differential equation",
                where="state_space",
                remedy="use transitions(times), which is exact for them",
            )
        )

    def output_map(self) -> Float[Tensor, "*batch 1 s"]:
        return self.unit_variance

    def marginal_covariance(
        self, times: Float[Tensor, "*batch T"]
    ) -> Float[Tensor, "*batch T s s"]:
        batch = torch.broadcast_shapes(self._batch_shape, times.shape[:-1])
        return self.unit_variance.unsqueeze(-3).expand(*batch, times.shape[-1], 1, 1)

    def transitions_over(self, steps: Float[Tensor, "*batch T"]) -> Transitions:
        same = self.unit_variance[..., 0] * (steps == 0)
        A = same[..., None, None]
        return Transitions(A, 1 - A)
