"""The filter of ``likelihood`` in native code, with an exact gradient by its adjoint.

Python costs a hundred microseconds a step of the filter and three times that for its gradient;
native code costs one and three. Forward, means and covariances are kept; backward, with bars for
derivatives of the value,

    bar P = a (bar P') a' + sym(bar(Pb) b'),   bar Q = bar P' + bar(QC) C',   bar S = ...

step by step from the last observation, as in ``likelihood``'s recursion read backwards. The
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

__all__ = [
    "NativeInputs",
    "Run",
    "has_library",
    "is_native_available",
    "is_plain",
    "native_pieces",
    "require_positive",
]


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


def has_library() -> bool:
    """Whether there is native code: a C++ compiler."""
    return _library() is not None


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


class Run:
    """One pass of the filter, and the score by a pass back; arguments as in ``NativeInputs``.

    Attributes:
        failed: the step, counted from 1, whose variance was not positive; 0 if none was.
        log_variance, quadratic: the sums () and (R,).
    """

    def __init__(
        self,
        a: Tensor,
        Q: Tensor,
        C: Tensor,
        noise: Tensor,
        mean: Tensor,
        covariance: Tensor,
        seen: Tensor,
        index: Tensor,
        observed: Tensor,
        y: Tensor,
        increments: bool,
    ) -> None:
        # the problem's pointers are into what is kept here
        self._kept = tuple(x.detach().contiguous() for x in (index, observed, a, Q, C, seen, y))
        steps, (num, n) = len(index), mean.shape
        self._problem = _Problem(
            *(steps, n, num, int(len(C) == 1), int(increments)),
            *(x.data_ptr() for x in self._kept),
            float(noise),
        )
        self._means = torch.empty(steps + 1, num, n, dtype=a.dtype)
        self._covariances = torch.empty(steps + 1, n, n, dtype=a.dtype)
        self._means[0], self._covariances[0] = mean.detach(), covariance.detach()
        self.log_variance = torch.zeros((), dtype=a.dtype)
        self.quadratic = torch.zeros(num, dtype=a.dtype)
        outputs = (self._means, self._covariances, self.log_variance, self.quadratic)
        self._code = _library()
        assert self._code is not None
        problem = ctypes.byref(self._problem)
        self.failed: int = self._code.forward(problem, *(_pointer(x) for x in outputs))

    def score(self, g_log: float, g_quadratic: Float[Tensor, " R"]) -> tuple[Tensor, ...]:
        """Derivatives in (a, Q, C, seen, noise, mean, covariance) of the weighted sums."""
        _, _, a, Q, C, seen, _ = self._kept
        noise = torch.zeros((), dtype=a.dtype)
        like = (a, Q, C, seen, noise, self._means[0], self._covariances[0])
        found = tuple(torch.zeros_like(x) for x in like)
        assert self._code is not None
        self._code.backward(
            ctypes.byref(self._problem),
            _pointer(self._means),
            _pointer(self._covariances),
            ctypes.c_double(g_log),
            _pointer(g_quadratic),
            *(_pointer(x) for x in found),
        )
        return found


class _Pieces(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        a, Q, C, seen, noise, mean, covariance, index, series = arguments
        data = (seen, index, series.observed, series.values.mT, series.increments)
        run = Run(a, Q, C, noise, mean, covariance, *data)
        require_positive(run.failed)
        ctx.run = run
        return run.log_variance, run.quadratic

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        g_log, g_quadratic = grads
        return (*ctx.run.score(float(g_log), g_quadratic.contiguous()), None, None)


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
