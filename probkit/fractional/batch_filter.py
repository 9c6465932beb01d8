"""The filter of ``likelihood`` for many parameters and series, forward only, in native code.

Variances do not depend on data, so a parameter's variances and gains are computed once, for as
many parameters at a time as a vector register holds numbers; the means of all series then run
through the gains of 32 steps while these are in the first cache. Transitions are diagonal, and
their noise follows from the rates, ``Q_jl = (1 - a_j a_l) / (g_j + g_l)``: gaps may all differ.
The variances of regular series do not become steady exactly, because the static slope is learned
at the rate 1 / t for ever; all steps are taken.
Cost: 5 n^2 / 2 operations a step and parameter, 3 n a step, parameter and series.
"""

from __future__ import annotations

import ctypes
from functools import cache

import torch
from torch.nn.functional import pad

from probkit.fractional.likelihood import FilterPieces, filter_series, initial_state
from probkit.fractional.native_filter import is_plain, require_positive
from probkit.fractional.series import Series
from probkit.fractional.system import FractionalSystem
from probkit.infer.native.build import packaged_library

__all__ = ["filter_batch"]


def filter_batch(system: FractionalSystem, series: Series) -> FilterPieces:
    """``likelihood.filter_series`` of a batch of parameters (G,), without derivatives.

    Where there is no C++ compiler, on other devices and for other dtypes it is that function.

    Raises:
        NotPositiveDefiniteError: the variance of an observation is not positive.
    """
    code = _library() if is_plain(system.noise) else None
    if code is None or system.noise.dim() != 1:
        return filter_series(system, series)
    with torch.no_grad():
        return _run(code, system, series)


class _Problem(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("N", "n", "R", "G", "D", "increments")),
        *((name, ctypes.c_void_p) for name in ("gap", "observed", "gaps", "seen", "y")),
        *((name, ctypes.c_void_p) for name in ("rates", "C", "noise", "mean", "P")),
    )


def _run(code: ctypes.CDLL, system: FractionalSystem, series: Series) -> FilterPieces:
    C, mean, P = initial_state(system, series)
    num, count, size = mean.shape
    gaps, seen = series.distinct, series.seen
    kept = (
        *(series.gap_index, series.observed.contiguous(), gaps, seen.contiguous()),
        series.values.mT.contiguous(),
        pad(system.rates, (0, 2)).expand(count, size).mT.contiguous(),
        C.expand(count, size).mT.contiguous(),
        system.noise.contiguous(),
        mean.mT.contiguous(),
        P.expand(count, size, size).movedim(0, -1).contiguous(),
    )
    sizes = (len(series.gaps), size, num, count, len(gaps), int(series.increments))
    problem = _Problem(*sizes, *(x.data_ptr() for x in kept))
    found = [
        torch.empty(*shape, dtype=P.dtype)
        for shape in ((count,), (num, count), (num, size, count), (size, size, count))
    ]
    pointers = (ctypes.c_void_p(x.data_ptr()) for x in found)
    require_positive(code.batch(ctypes.byref(problem), *pointers))
    log_variance, quadratic, last, covariance = found
    covariance = covariance.movedim(-1, 0)
    return FilterPieces(log_variance, quadratic, series.num_observed, last.mT, covariance)


@cache
def _library() -> ctypes.CDLL | None:
    """None where there is no C++ compiler."""
    found = packaged_library("probkit.fractional", "batch_filter.cpp")
    if found is None:
        return None
    found.batch.restype = ctypes.c_int64
    return found
