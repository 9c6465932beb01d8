"""The log normaliser of a Gaussian chain in natural form, with its gradient in closed form."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.linalg.banded import chain_factor

__all__ = ["log_normalizer", "refuse_second_derivative"]


def log_normalizer(
    diagonal: Float[Tensor, "*batch T n n"],
    lower: Float[Tensor, "*batch T-1 n n"],
    rhs: Float[Tensor, "*batch T n"],
) -> Float[Tensor, "*batch"]:
    """``rhs' J^-1 rhs / 2 - log det(J) / 2``, the log normaliser of a Gaussian in natural form.

    The gradient is in closed form, minus the second moments of ``N(J^-1 rhs, J^-1)`` on the
    pattern of ``J``, and costs as much as one more solve. It can be taken once, not twice.

    Example:
        >>> d = torch.full((3, 1, 1), 2.0, requires_grad=True)
        >>> log_normalizer(d, -torch.ones(2, 1, 1), torch.zeros(3, 1)).backward()
        >>> [round(float(v), 4) for v in d.grad.flatten()]
        [-0.375, -0.5, -0.375]
    """
    out: Tensor = _LogNormalizer.apply(diagonal, lower, rhs)
    return out


def refuse_second_derivative(name: str) -> None:
    """Raise inside a closed-form ``backward`` when its result would have to be differentiated.

    Autograd enables gradients there only under ``create_graph=True``; returning a constant would
    silently drop terms of the second derivative.
    """
    if torch.is_grad_enabled():
        raise ConfigurationError(
            message(
                f"{name} can be differentiated once, not twice",
                where="create_graph",
                got=True,
                expected=False,
                remedy="differentiate through factorize(...) for second derivatives",
            )
        )


class _LogNormalizer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, diagonal: Tensor, lower: Tensor, rhs: Tensor) -> Tensor:
        factor = chain_factor(diagonal, lower)
        mean = factor.solve(rhs)
        ctx.factor = factor
        ctx.save_for_backward(mean)
        return 0.5 * ((rhs * mean).sum((-2, -1)) - factor.logdet())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        refuse_second_derivative("log_normalizer")
        (mean,) = ctx.saved_tensors
        blocks, lower = ctx.factor.selected_inverse()
        weight = grads[0][..., None, None]
        second = blocks + mean.unsqueeze(-1) * mean.unsqueeze(-2)
        pair = lower + mean[..., 1:, :].unsqueeze(-1) * mean[..., :-1, :].unsqueeze(-2)
        return (
            -0.5 * weight.unsqueeze(-1) * second,
            -weight.unsqueeze(-1) * pair,
            weight * mean,
        )
