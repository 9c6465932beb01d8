"""The filter of ``likelihood`` in native code, with an exact gradient by its adjoint.

Python costs a hundred microseconds a step of the filter and three times that for its gradient, and
as much as all of a short series for the small matrices that make a filter; native code makes them
from rates and loadings, and costs a fifth of a microsecond a step and twice that for the gradient.
Forward, means and covariances are kept now and then and the steps between taken again when their
derivatives are due, because fresh memory costs more than steps that stay in the cache. Backward,
with bars for derivatives of the value,

    bar P = a (bar P') a' + sym(bar(Pb) b'),   bar Q = bar P' + bar(QC) C',   bar S = ...

step by step from the last observation, as in ``likelihood``'s recursion read backwards, and then
through transitions and first moments to the system. Torch goes on from there to the parameters.
There is one set of parameters, no batch of them.
Cost: n^2 a step and n a step and series; a 32nd of that in memory.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from probkit.errors import NotPositiveDefiniteError, message
from probkit.fractional.series import Series
from probkit.fractional.system import FractionalSystem
from probkit.infer.native.build import packaged_library, pointer

__all__ = [
    "NativeData",
    "Run",
    "has_library",
    "is_native_available",
    "is_plain",
    "native_data",
    "require_positive",
]


class NativeData(NamedTuple):
    """What a filter is given besides its system.

    ``gaps`` are the distinct ones, ``gap_index`` which of them each step has, ``seen`` the loading
    of the slope on each step's observation, ``first`` the first levels.
    """

    gaps: Float[Tensor, " G"]
    gap_index: Int64[Tensor, " N"]
    seen: Float[Tensor, " N"]
    observed: Bool[Tensor, " N"]
    first: Float[Tensor, " R"]
    y: Float[Tensor, "R N"]
    increments: bool


def native_data(series: Series) -> NativeData:
    """The arrays of a series, without copies where it can be."""
    return NativeData(
        series.distinct,
        series.gap_index,
        series.seen.contiguous(),
        series.observed.contiguous(),
        series.first.contiguous(),
        series.values.contiguous(),
        series.increments,
    )


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


class _Problem(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("N", "M", "R", "G", "increments")),
        *((name, ctypes.c_void_p) for name in ("gap", "observed", "gaps", "seen", "first", "y")),
        *((name, ctypes.c_void_p) for name in ("rates", "loadings")),
        *((name, ctypes.c_double) for name in ("slope", "noise")),
    )


class Run:
    """One pass of the filter, and the score by a pass back.

    Args:
        system: one set of parameters.
        data: of the series.

    Attributes:
        failed: the step, counted from 1, whose variance was not positive; 0 if none was.
        log_variance, quadratic: the sums () and (R,).
    """

    def __init__(self, system: FractionalSystem, data: NativeData) -> None:
        code = _library()
        assert code is not None
        rates, loadings, slope, noise = system
        gaps, index, seen, observed, first, y, increments = data
        steps, modes, num = len(index), len(rates), len(y)
        # the problem's pointers are into what is kept here
        self._system = rates.detach().contiguous(), loadings.detach().contiguous()
        self._kept = (index, observed, gaps, seen, first, y, *self._system)
        self._problem = _Problem(
            *(steps, modes, num, len(gaps), int(increments)),
            *(x.data_ptr() for x in self._kept),
            float(slope),
            float(noise),
        )
        kept, width = code.kept(steps), code.padded(modes)
        self._means = torch.empty(kept, num, width, dtype=rates.dtype)
        self._covariances = torch.empty(kept, modes + 2, width, dtype=rates.dtype)
        self.log_variance = torch.zeros((), dtype=rates.dtype)
        self.quadratic = torch.zeros(num, dtype=rates.dtype)
        outputs = (self._means, self._covariances, self.log_variance, self.quadratic)
        problem = ctypes.byref(self._problem)
        self.failed: int = code.forward(problem, *(pointer(x) for x in outputs))
        self._code = code

    def score(self, g_log: float, g_quadratic: Float[Tensor, " R"]) -> tuple[Tensor, ...]:
        """Derivatives of the weighted sums in (rates, loadings, slope, noise)."""
        rates, loadings = self._system
        found = tuple(torch.zeros_like(x) for x in (rates, loadings, rates[0], rates[0]))
        self._code.backward(
            ctypes.byref(self._problem),
            pointer(self._means),
            pointer(self._covariances),
            ctypes.c_double(g_log),
            pointer(g_quadratic),
            *(pointer(x) for x in found),
        )
        return found


@cache
def _library() -> ctypes.CDLL | None:
    """None where there is no C++ compiler."""
    found = packaged_library("probkit.fractional", "filter.cpp")
    if found is None:
        return None
    found.forward.restype = ctypes.c_int64
    for size in (found.padded, found.kept):
        size.restype, size.argtypes = ctypes.c_int64, (ctypes.c_int64,)
    found.backward.restype = None
    return found
