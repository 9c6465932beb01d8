"""Exact filter where the loadings of the modes change from step to step.

Modes ``m`` (Ornstein-Uhlenbeck and static ones) have transitions that depend on the step's length
only. The level x goes on (keep = 1), or is an increment that starts afresh (keep = 0)::

    m' = a m + xi,  xi ~ N(0, Q),     x' = keep x + u'm + g'xi,     y = x' + e,  e ~ N(0, r)

Both definitions of a process with a time-varying Hurst index have this form (``varying``).
With P the covariance of m, c that of m with x, p the variance of x::

    c1 = a (P u + keep c) + Q g,   p1 = u'P u + 2 keep u'c + keep p + g'Q g,   S = p1 + r
    P <- a P a' + Q - c1 c1' / S,  c <- c1 r / S,  p <- p1 r / S,  and means with gains c1/S, p1/S

The derivative in u, g, r and the first p is the adjoint of that recursion, step by step from the
last observation; it is native code, with a loop of torch operations where there is no compiler.
Series of one batch share all but their values. Cost: n^2 a step, n a step and series.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from probkit.errors import NotPositiveDefiniteError, message
from probkit.infer.native.build import packaged_library, pointer

__all__ = ["VaryingFilter", "filter_varying"]


@dataclass(frozen=True)
class VaryingFilter:
    """What does not depend on parameters.

    Attributes:
        a: decays of the modes over the distinct gaps, (G, n).
        Q: their noise covariances, (G, n, n).
        index: of each step's gap, (N,).
        covariance: of the first modes, (n, n); their mean is 0.
        first: first levels, (R,).
        values: (R, N); anything where not observed.
        observed: (N,).
        keep: whether the level goes on from step to step.
    """

    a: Float[Tensor, "G n"]
    Q: Float[Tensor, "G n n"]
    index: Int[Tensor, " N"]
    covariance: Float[Tensor, "n n"]
    first: Float[Tensor, " R"]
    values: Float[Tensor, "R N"]
    observed: Bool[Tensor, " N"]
    keep: bool


def filter_varying(
    problem: VaryingFilter,
    u: Float[Tensor, "N n"],
    g: Float[Tensor, "N n"],
    noise: Float[Tensor, ""],
    first_variance: Float[Tensor, ""],
) -> tuple[Float[Tensor, ""], Float[Tensor, " R"]]:
    """Sum over the observations of log S, and of v^2 / S for each series.

    Args:
        u, g: loadings on the modes before the step, and on their noise in it.
        noise: variance r of the observations.
        first_variance: of the level before the first step.

    Raises:
        NotPositiveDefiniteError: the variance of an observation is not positive.
    """
    if _library() is None or u.device.type != "cpu" or u.dtype != torch.float64:
        return filter_by_torch(problem, u, g, noise, first_variance)
    found: tuple[Tensor, Tensor] = _Pieces.apply(u, g, noise, first_variance, problem)
    return found


def filter_by_torch(
    problem: VaryingFilter, u: Tensor, g: Tensor, noise: Tensor, first_variance: Tensor
) -> tuple[Tensor, Tensor]:
    """:func:`filter_varying` in torch operations: differentiable twice, and slow."""
    P, c, p = problem.covariance, torch.zeros_like(u[0]), first_variance
    mean, level = u.new_zeros(len(problem.first), u.shape[-1]), problem.first
    log_variance, quadratic = u.new_zeros(()), torch.zeros_like(problem.first)
    keep = float(problem.keep)
    for n, index in enumerate(problem.index.tolist()):
        a, Q = problem.a[index], problem.Q[index]
        moved, fresh = P @ u[n], Q @ g[n]
        c1 = a * (moved + keep * c) + fresh
        p = u[n] @ moved + keep * (2 * u[n] @ c + p) + g[n] @ fresh
        level = keep * level + mean @ u[n]
        mean, P, c = mean * a, P * (a[:, None] * a) + Q, c1
        if not problem.observed[n]:
            continue
        S = p + noise
        if not bool(S > 0):
            raise _not_positive(n)
        v = problem.values[:, n] - level
        log_variance, quadratic = log_variance + torch.log(S), quadratic + v * v / S
        mean, level = mean + (v / S)[:, None] * c1, level + v * p / S
        P, c, p = P - c1[:, None] * c1 / S, c1 * noise / S, p * noise / S
    return log_variance, quadratic


class _Problem(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("N", "n", "R")),
        *((name, ctypes.c_void_p) for name in ("gap", "observed", "a", "Q", "u", "g", "y")),
        *((name, ctypes.c_double) for name in ("r", "keep")),
    )


class _Pieces(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        *parts, problem = arguments
        u, g, noise, first_variance = (x.detach().contiguous() for x in parts)
        y = problem.values.mT.contiguous()
        fixed = (problem.index, problem.observed, problem.a, problem.Q)
        kept = (*(x.contiguous() for x in fixed), u, g, y)
        (steps, n), num = u.shape, len(problem.first)
        numbers = (float(noise), float(problem.keep))
        native = _Problem(steps, n, num, *(x.data_ptr() for x in kept), *numbers)
        shapes = ((num, n), (num,), (n, n), (n,), ())
        moments = [u.new_empty(steps + 1, *shape) for shape in shapes]
        firsts = (0.0, problem.first, problem.covariance, 0.0, first_variance)
        for moment, value in zip(moments, firsts, strict=True):
            moment[0] = value
        log_variance, quadratic = u.new_zeros(()), u.new_zeros(num)
        code = _library()
        assert code is not None
        outputs = (*moments, log_variance, quadratic)
        failed = code.varying_forward(ctypes.byref(native), *map(pointer, outputs))
        if failed:
            raise _not_positive(failed - 1)
        ctx.native, ctx.kept, ctx.moments = native, kept, moments  # pointers are into these
        return log_variance, quadratic

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        g_log, g_quadratic = grads[0], grads[1].contiguous()
        u = ctx.kept[4]
        found = (torch.zeros_like(u), torch.zeros_like(u), u.new_zeros(()), u.new_zeros(()))
        code = _library()
        assert code is not None
        code.varying_backward(
            ctypes.byref(ctx.native),
            *map(pointer, ctx.moments),
            ctypes.c_double(float(g_log)),
            pointer(g_quadratic),
            *map(pointer, found),
        )
        return (*found, None)


@cache
def _library() -> ctypes.CDLL | None:
    """None where there is no C++ compiler."""
    found = packaged_library("probkit.fractional", "varying_filter.cpp")
    if found is None:
        return None
    found.varying_forward.restype = ctypes.c_int64
    found.varying_backward.restype = None
    return found


def _not_positive(step: int) -> NotPositiveDefiniteError:
    return NotPositiveDefiniteError(
        message(
            "The variance of an observation is not positive",
            where=f"observation {step}",
            remedy="let the model have noise, or move the times apart",
        )
    )
