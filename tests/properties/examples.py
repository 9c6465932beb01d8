"""How many examples a property is tried on: few here, more where ``PROBKIT_EXAMPLES`` says so."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from hypothesis import HealthCheck, settings
from torch import Tensor

__all__ = ["F64", "normal", "tried", "uniform"]

F64 = torch.float64
_MORE = int(os.environ.get("PROBKIT_EXAMPLES", "1"))


def tried(examples: int) -> Callable:
    """Decorator: ``examples`` in the suite, ``PROBKIT_EXAMPLES`` times as many where it is set."""
    return settings(
        max_examples=examples * _MORE,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


def normal(*shape: int, seed: int, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def uniform(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)
