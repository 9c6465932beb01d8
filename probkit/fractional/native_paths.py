"""Native code of the recursions along a path (``paths.cpp``); None without a C++ compiler.

Python costs 150 microseconds a step of the backward recursion, native code five.
"""

from __future__ import annotations

import ctypes
from functools import cache

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from probkit.infer.native.build import packaged_library

__all__ = ["is_native", "path_library"]


def is_native(like: Tensor) -> bool:
    """Whether a value of this kind can be handled natively: not while torch transforms it."""
    plain = not isinstance(like, FakeTensor) and not torch._C._functorch.get_interpreter_stack()
    cpu = like.device.type == "cpu" and like.dtype == torch.float64
    return cpu and plain and path_library() is not None


@cache
def path_library() -> ctypes.CDLL | None:
    """The recursions, built at the first call."""
    found = packaged_library("probkit.fractional", "paths.cpp")
    if found is None:
        return None
    size, data = ctypes.c_int64, ctypes.c_void_p
    found.condition.restype = size
    found.condition.argtypes = [size] * 3 + [data] * 11
    for function in (found.whiten, found.whiten_adjoint):
        function.restype = None
        function.argtypes = [size] * 3 + [data] * 6
    return found
