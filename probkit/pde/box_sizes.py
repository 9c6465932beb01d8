"""Bounds and numbers of points of a box, checked and made plain Python numbers."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

from probkit.errors import ConfigurationError, message

__all__ = ["box_sizes"]


def box_sizes(bounds: Any, num: Any) -> tuple[list[tuple[float, ...]], int | tuple[int, ...]]:
    """Bounds as floats, and points as an integer for all sides or one a side.

    Raises:
        ConfigurationError: ends that are not finite and increasing, fewer than 4 points on a side,
            or numbers of points that are not one a side.

    Example:
        >>> box_sizes([(0, 1)], [5])
        ([(0.0, 1.0)], (5,))
    """
    sides = [tuple(float(end) for end in side) for side in bounds]
    single = not hasattr(num, "__iter__")
    sizes: list[Any] = [num] * len(sides) if single else list(num)
    ordered = all(len(b) == 2 and all(map(math.isfinite, b)) and b[0] < b[1] for b in sides)
    counts = all(isinstance(n, Integral) and int(n) >= 4 for n in sizes)
    if not (sides and ordered and counts and len(sizes) == len(sides)):
        raise ConfigurationError(
            message(
                "A box needs finite low < high and at least 4 points on every side",
                where="Box",
                got=f"bounds {list(bounds)}, num {num}",
                expected="a whole number of points for all sides, or one a side",
            )
        )
    return sides, int(sizes[0]) if single else tuple(map(int, sizes))
