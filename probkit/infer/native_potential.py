"""A potential in native code as Pyro's samplers want it: a differentiable function of a dict."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from probkit.infer.native.program import NativeFunction
from probkit.infer.potential import Potential

__all__ = ["NativePotential"]


class NativePotential:
    """``U({"z": flat})`` for ``pyro.infer.NUTS(potential_fn=...)``; infinite where U breaks down.

    Args:
        potential: the traced potential.

    Raises:
        Unsupported: it has no native form; the text says why.
    """

    def __init__(self, potential: Potential) -> None:
        point = torch.zeros(potential.size, dtype=potential.dtype, device=potential.device)

        # a plain function: the tracer counts the arguments of what it is given
        def evaluate(z: Tensor) -> tuple[Tensor, Tensor]:
            return potential.value_and_gradient_at(z)

        self._function = NativeFunction(evaluate, point, ())

    def __call__(self, values: dict[str, Tensor]) -> Tensor:
        value: Tensor = _Evaluate.apply(values["z"], self._function)
        return value


class _Evaluate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, function: NativeFunction) -> Tensor:
        value, gradient, failed = function(z)
        ctx.save_for_backward(gradient)
        return z.new_tensor(torch.inf if failed else value)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return upstream[0] * gradient, None
