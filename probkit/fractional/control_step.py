"""One step of a controlled path: linear in all but its drift, diffusion and network.

With the state (x, Y, slope), the drift b, the diffusion s, the network's u_0, the noise ``own`` of
the step and the gain G and pull p of the linearised optimum::

    base = x + h b + s (w'(e^(-gh) - 1) Y + h slope)
    u = u_0 + p + (base, e^(-gh) Y, slope) G
    Y' = e^(-gh) Y + own + u (1 - e^(-gh)) / g,   x' = base + s w'(Y' - e^(-gh) Y)

In torch operations that is fifteen small kernels and thirty for the gradient, which cost more than
a network of two layers; here it is one node of the graph, native both ways. A gradient that is
itself recorded is taken of the torch operations.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.fractional.native_filter import is_plain
from probkit.infer.native.build import packaged_library
from probkit.sde.exact import StepMatrices, weighted

__all__ = ["StepGain", "choose_step", "control_step_by_torch"]

_F64: dict[str, Any] = {"dtype": torch.float64}


@dataclass(frozen=True)
class StepGain:
    """What steps have in common, and the gain (d, D) and pull (D,) of this one, if it has any."""

    matrices: StepMatrices
    gain: Float[Tensor, "d D"] | None
    pull: Float[Tensor, " D"] | None

    def contiguous(self) -> tuple[Tensor | None, ...]:
        """Decay, response, gain and pull, for native code."""
        parts = (self.matrices.decay, self.matrices.response, self.gain, self.pull)
        return tuple(None if part is None else part.contiguous() for part in parts)


def choose_step(like: Tensor) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """The step for states of this kind: :func:`control_step_by_torch`, or the native one.

    That takes ``own`` and the gain for constants.
    """
    return _native_step if is_plain(like) and _library() is not None else control_step_by_torch


def control_step_by_torch(
    x: Float[Tensor, "S D"],
    y: Float[Tensor, "S D K"],
    drift: Float[Tensor, "S D"],
    scale: Float[Tensor, "S D"],
    net: Float[Tensor, "S D"] | None,
    slope: Float[Tensor, "S D"],
    weights: Float[Tensor, "D K"],
    own: Float[Tensor, "S D K"],
    fixed: StepGain,
) -> tuple[Tensor, Tensor, Tensor]:
    """The next x and Y, and the control; on every device and under every transform."""
    matrices = fixed.matrices
    after, falls = y * matrices.decay, weights * (matrices.decay - 1)
    base = torch.add(x, drift, alpha=matrices.step)
    base = torch.addcmul(base, scale, weighted(y, falls) + slope * matrices.step)
    u = torch.zeros_like(x) if net is None else net
    if fixed.gain is not None and fixed.pull is not None:
        ahead = torch.cat([base, after.flatten(-2), slope], -1)
        u = u + torch.addmm(fixed.pull, ahead, fixed.gain)
    kick = torch.addcmul(own, u[..., None], matrices.response)
    return torch.addcmul(base, scale, weighted(kick, weights)), after + kick, u


def _native_step(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    found: tuple[Tensor, Tensor, Tensor] = _Step.apply(*arguments)
    return found


class _Problem(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("S", "D", "K")),
        ("h", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("decay", "response", "gain", "pull")),
    )


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        *parts, fixed = arguments
        inputs = [None if part is None else part.contiguous() for part in parts]
        x, y = parts[:2]
        ctx.kept = fixed.contiguous()  # pointers are into what is kept
        ctx.problem = _Problem(*y.shape, fixed.matrices.step, *_pointers(ctx.kept))
        x1, y1, u = (torch.empty(part.shape, **_F64) for part in (x, y, x))
        code = _library()
        assert code is not None
        code.control_step(ctypes.byref(ctx.problem), *_pointers((*inputs, x1, y1, u)))
        ctx.fixed = fixed
        ctx.save_for_backward(*inputs, u)
        return x1, y1, u

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        *parts, u = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (*_recorded(parts, ctx.fixed, grads, ctx.needs_input_grad), None)
        x, y, _, scale, net, slope, weights, own = parts
        dx, ddrift, dscale, dnet, dslope = torch.empty(5, *x.shape, **_F64).unbind()
        dy, dw = torch.empty(y.shape, **_F64), torch.zeros(weights.shape, **_F64)
        given = (y, scale, slope, weights, own, u, *(g.contiguous() for g in grads))
        found = (dx, dy, ddrift, dscale, dnet, dslope, dw)
        code = _library()
        assert code is not None
        code.control_step_adjoint(ctypes.byref(ctx.problem), *_pointers((*given, *found)))
        return dx, dy, ddrift, dscale, None if net is None else dnet, dslope, dw, None, None


def _recorded(
    parts: list[Any], fixed: StepGain, grads: tuple[Tensor, ...], needed: tuple[bool, ...]
) -> list[Tensor | None]:
    outputs = control_step_by_torch(*[*parts, fixed])
    wanted = [part for part, need in zip(parts, needed, strict=False) if need]
    found = iter(torch.autograd.grad(outputs, wanted, grads, create_graph=True, allow_unused=True))
    return [next(found) if need else None for need in needed[:-1]]


def _pointers(values: Sequence[Tensor | None]) -> list[int | None]:
    return [None if value is None else value.data_ptr() for value in values]


@cache
def _library() -> ctypes.CDLL | None:
    """None where there is no C++ compiler."""
    found = packaged_library("probkit.fractional", "control.cpp")
    if found is None:
        return None
    for function, count in ((found.control_step, 12), (found.control_step_adjoint, 17)):
        function.restype, function.argtypes = None, (ctypes.c_void_p,) * count
    return found
