"""The filter of :mod:`.likelihood` in native code, with an exact gradient by its adjoint.

Python costs a hundred microseconds a step of the filter and three times that for its gradient;
native code costs one and three. Forward, means and covariances are kept; backward, with bars for
derivatives of the value,

    bar P = a (bar P') a' + sym(bar(Pb) b'),   bar Q = bar P' + bar(QC) C',   bar S = ...

step by step from the last observation, as in :mod:`.likelihood`'s recursion read backwards. The
derivative ends at what makes the filter (transitions, loadings, first moments); torch goes on from
there to whatever they depend on. There is one set of parameters, no batch of them.
Cost: n^2 a step and n a step and series, in memory too.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.function import once_differentiable

from probkit.errors import NotPositiveDefiniteError, message
from probkit.fractional.series import Series
from probkit.infer.native.build import library
from probkit.infer.native.lowering import Unsupported

__all__ = ["NativeInputs", "is_native_available", "is_plain", "native_pieces", "require_positive"]


@dataclass(frozen=True)
class NativeInputs:
    """What makes a filter, differentiable.

    Attributes:
        a: decays over the distinct gaps, (G, n); the last state is static.
        Q: their noise covariances, (G, n, n).
        C: loadings, (1, n) or one row a step (N, n).
        seen: loading of the last state on each step's observation, (N,).
        noise: variance of the observation noise, ().
        mean: of the first state, (R, n).
        covariance: of the first state, (n, n).
        index: of each step's gap, (N,).
    """

    a: Float[Tensor, "G n"]
    Q: Float[Tensor, "G n n"]
    C: Float[Tensor, "L n"]
    seen: Float[Tensor, " N"]
    noise: Float[Tensor, ""]
    mean: Float[Tensor, "R n"]
    covariance: Float[Tensor, "n n"]
    index: Tensor


def is_native_available(like: Tensor) -> bool:
    """Whether a value of this kind can be filtered natively: not while torch transforms it."""
    return is_plain(like) and _library() is not None


def is_plain(like: Tensor) -> bool:
    """Whether a tensor has numbers that native code can read: float64 on the CPU, untransformed."""
    plain = not isinstance(like, FakeTensor) and not torch._C._functorch.get_interpreter_stack()
    return plain and like.device.type == "cpu" and like.dtype == torch.float64


def require_positive(failed: int) -> None:
    """Raise for the step, counted from 1, whose variance was not positive; 0 is none."""
    if failed:
        raise NotPositiveDefiniteError(
            message(
                "The variance of an observation is not positive",
                where=f"observation {failed - 1}",
                remedy="let the model have noise, or move the times apart",
            )
        )


def native_pieces(inputs: NativeInputs, series: Series) -> tuple[Tensor, Tensor]:
    """Sum of log S, (), and of v^2 / S, (R,), over the observations.

    Raises:
        NotPositiveDefiniteError: the variance of an observation is not positive.
    """
    i = inputs
    parts = (i.a, i.Q, i.C, i.seen, i.noise, i.mean, i.covariance)
    found: tuple[Tensor, Tensor] = _Pieces.apply(*parts, i.index, series)
    return found


class _Problem(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("N", "n", "R", "shared", "increments")),
        *((name, ctypes.c_void_p) for name in ("gap", "observed", "a", "Q", "C", "seen", "y")),
        ("r", ctypes.c_double),
    )


class _Pieces(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        *parts, index, series = arguments
        a, Q, C, seen, noise, mean, covariance = (x.detach().contiguous() for x in parts)
        constants = (index.contiguous(), series.observed.contiguous())
        y = series.values.mT.contiguous()
        steps, (num, n) = len(index), mean.shape
        problem = _Problem(
            *(steps, n, num, int(len(C) == 1), int(series.increments)),
            *(x.data_ptr() for x in (*constants, a, Q, C, seen, y)),
            float(noise),
        )
        means = torch.empty(steps + 1, num, n, dtype=a.dtype)
        covariances = torch.empty(steps + 1, n, n, dtype=a.dtype)
        means[0], covariances[0] = mean, covariance
        log_variance, quadratic = torch.zeros((), dtype=a.dtype), torch.zeros(num, dtype=a.dtype)
        code = _library()
        assert code is not None
        outputs = (means, covariances, log_variance, quadratic)
        require_positive(code.forward(ctypes.byref(problem), *(_pointer(x) for x in outputs)))
        ctx.problem = problem  # its pointers are into what is kept here
        ctx.kept = (*constants, a, Q, C, seen, y, means, covariances)
        return log_variance, quadratic

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        g_log, g_quadratic = grads
        _, _, a, Q, C, seen, _, means, covariances = ctx.kept
        like = (a, Q, C, seen, torch.zeros((), dtype=a.dtype), means[0], covariances[0])
        found = tuple(torch.zeros_like(x) for x in like)
        weights = g_quadratic.contiguous()
        code = _library()
        assert code is not None
        code.backward(
            ctypes.byref(ctx.problem),
            _pointer(means),
            _pointer(covariances),
            ctypes.c_double(float(g_log)),
            _pointer(weights),
            *(_pointer(x) for x in found),
        )
        return (*found, None, None)


@cache
def _library() -> ctypes.CDLL | None:
    """None where there is no C++ compiler."""
    source = files("probkit.fractional").joinpath("filter.cpp").read_text(encoding="utf-8")
    try:
        found = library(source)
    except Unsupported:
        return None
    found.forward.restype = ctypes.c_int64
    found.backward.restype = None
    return found


def _pointer(values: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(values.data_ptr())
