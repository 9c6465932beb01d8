"""Values of a graph during lowering: numbers, strided views of memory, members of loops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "Member",
    "Number",
    "Value",
    "View",
    "dense_strides",
    "must_view",
    "same_elements",
    "view_of",
]


@dataclass(frozen=True)
class Number:
    """A tensor with one element, in a C++ variable or literal."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class View:
    """A strided view of a buffer; ``name`` is the pointer's C++ expression."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    strides: tuple[int, ...]
    offset: int = 0


@dataclass(frozen=True)
class Member:
    """An elementwise result that so far exists inside an open loop only."""

    loop: int
    index: int
    shape: tuple[int, ...]
    dtype: torch.dtype


Value = Number | View | Member


def dense_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a contiguous tensor.

    Example:
        >>> dense_strides((2, 3, 4))
        (12, 4, 1)
    """
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def same_elements(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two shapes differ by dimensions of size one only."""
    return [n for n in one if n != 1] == [n for n in other if n != 1]


def view_of(value: View, operation: Callable[[Tensor], Any]) -> View | None:
    """What a view operation of torch makes of ``value``; None where it would have to copy."""
    extent = (
        1
        + value.offset
        + sum((n - 1) * s for n, s in zip(value.shape, value.strides, strict=True) if n)
    )
    memory = torch.empty(extent, dtype=torch.uint8, device="meta")
    try:
        result = operation(memory.as_strided(value.shape, value.strides, value.offset))
    except RuntimeError:
        return None
    if result.untyped_storage()._cdata != memory.untyped_storage()._cdata:
        return None
    return replace(
        value,
        shape=tuple(result.shape),
        strides=tuple(result.stride()),
        offset=result.storage_offset(),
    )


def must_view(value: View, operation: Callable[[Tensor], Any]) -> View:
    """:func:`view_of` for an operation that never copies."""
    found = view_of(value, operation)
    assert found is not None
    return found
