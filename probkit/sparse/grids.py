"""Dictionaries that are functions of a grid, and what moving their points needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from probkit.infer.quasi_newton import Memory

__all__ = ["GridDictionary", "empty_memory", "spacing_of"]

_MEMORY = 12


class GridDictionary(NamedTuple):
    """A dictionary as a function of its grid.

    Example:
        >>> import torch
        >>> from probkit.sparse import steering
        >>> angles = GridDictionary(lambda t: steering(8, t), torch.linspace(-1, 0.9, 20).double())
        >>> angles.matrix().shape
        torch.Size([8, 20])
    """

    response: Callable[[Tensor], Tensor]
    """Points (N,) to columns (M, N), each of which depends on its own point; differentiable."""
    grid: Tensor
    """(N,)"""

    def matrix(self) -> Tensor:
        return self.response(self.grid)


def empty_memory(flat: Tensor) -> Memory:
    """Of L-BFGS, for unknowns of this shape."""
    return Memory(flat.new_zeros(_MEMORY, len(flat)), flat.new_zeros(_MEMORY, len(flat)), 0)


def spacing_of(grid: Tensor) -> float:
    """The typical distance between neighbours; 1 where there are none."""
    found = float(grid.sort().values.diff().median()) if len(grid) > 1 else 0.0
    return found if found > 0 else 1.0
