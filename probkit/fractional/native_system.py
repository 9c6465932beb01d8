"""The system of one set of parameters in native code, with its derivatives.

In torch operations the hundred small steps from Hurst index and reversion to rates and loadings,
and back for a gradient, cost more than the filter of a thousand observations. The derivatives come
forward, with the values: there are two parameters and some twenty numbers.
"""

from __future__ import annotations

import ctypes
import math
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.fractional.native_filter import is_plain
from probkit.fractional.system import CLOSE, FractionalSystem, fractional_system
from probkit.infer.native.build import packaged_library
from probkit.statespace.fractional_tables import HURST_RANGE, law_table

__all__ = ["quick_system"]


def quick_system(
    hurst: Float[Tensor, "*batch"],
    noise: Float[Tensor, "*batch"],
    reversion: Float[Tensor, "*batch"] | None,
    num_steps: int,
) -> FractionalSystem:
    """``fractional_system``, natively where there is one set of parameters and no transform."""
    single = hurst.dim() == 0 and is_plain(hurst) and (reversion is None or is_plain(reversion))
    if not single or _library() is None:
        return fractional_system(hurst, noise, reversion, num_steps)
    rates, loadings, slope = _System.apply(hurst, reversion, num_steps)
    return FractionalSystem(rates, loadings, slope, noise)


class _Table(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("K", "terms")),
        *((name, ctypes.c_void_p) for name in ("rates", "coefficients")),
        *((name, ctypes.c_double) for name in ("centre", "radius")),
    )


class _System(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hurst: Tensor, reversion: Tensor | None, num_steps: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        code = _library()
        assert code is not None
        rates, coefficients = law_table(num_steps)
        low, high = HURST_RANGE
        table = _Table(
            *reversed(coefficients.shape),
            rates.data_ptr(),
            coefficients.data_ptr(),
            (low + high) / 2,
            (high - low) / 2,
        )
        modes = len(rates) if reversion is None else len(rates) + 5
        found = torch.empty(3, 2 * modes + 1, dtype=rates.dtype)
        code.system_of(
            ctypes.byref(table),
            float(hurst),
            int(reversion is not None),
            0.0 if reversion is None else float(reversion),
            _variance(float(hurst)),
            CLOSE,
            found.data_ptr(),
        )
        ctx.slopes, ctx.num_steps = found[1:], num_steps
        ctx.save_for_backward(hurst, reversion)
        return found[0, :modes], found[0, modes:-1], found[0, -1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if not torch.is_grad_enabled():
            g_rates, g_loadings, g_slope = grads
            in_hurst, in_reversion = ctx.slopes @ torch.cat([g_rates, g_loadings, g_slope[None]])
            return in_hurst, in_reversion if ctx.needs_input_grad[1] else None, None
        # recorded, for a derivative of its own: of the operations of torch
        hurst, reversion = ctx.saved_tensors
        parts = fractional_system(hurst, torch.zeros_like(hurst), reversion, ctx.num_steps)[:3]
        moving = [i for i, x in enumerate(parts) if x.requires_grad]
        wanted = [x for x in (hurst, reversion) if x is not None and x.requires_grad]
        found = iter(
            torch.autograd.grad(
                [parts[i] for i in moving],
                wanted,
                [grads[i] for i in moving],
                create_graph=True,
            )
        )
        return (*(next(found) if needed else None for needed in ctx.needs_input_grad[:2]), None)


def _variance(hurst: float) -> Any:
    """``mvn_variance`` and its derivative."""
    twice = 2 * hurst + 1
    value = math.exp(-math.lgamma(twice)) / math.sin(math.pi * hurst)
    digamma = float(torch.special.digamma(torch.tensor(twice, dtype=torch.float64)))
    slope = -value * (2 * digamma + math.pi / math.tan(math.pi * hurst))
    return (ctypes.c_double * 2)(value, slope)


@cache
def _library() -> ctypes.CDLL | None:
    """None where there is no C++ compiler."""
    found = packaged_library("probkit.fractional", "system.cpp")
    if found is None:
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_double
    found.system_of.argtypes = (pointer, number, ctypes.c_int64, number, pointer, number, pointer)
    found.system_of.restype = None
    return found
