"""What equations, conditions and points are made of, checked and made plain tensors and numbers."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ConfigurationError, DataError, ShapeError, message
from probkit.validation import as_real, check_finite

__all__ = ["as_coefficient", "as_noise", "as_place", "as_points", "as_sides", "check_derivative"]


def as_coefficient(value: Any, where: str) -> Any:
    """Numbers, tensors and functions as they are; arrays, lists and columns as tensors.

    Raises:
        DtypeError: no real numbers.
    """
    if callable(value) or isinstance(value, Real | Tensor):
        return value
    return as_real(value, where)


def as_noise(value: Any, where: str) -> float:
    """A standard deviation: one number, finite and not negative.

    Raises:
        ConfigurationError: anything else.

    Example:
        >>> as_noise(torch.tensor(0.5), "noise")
        0.5
    """
    single = isinstance(value, Real) or (getattr(value, "ndim", None) == 0)
    number = float(value) if single and not isinstance(value, bool) else math.nan
    if not 0 <= number < math.inf:
        raise ConfigurationError(
            message(
                "A standard deviation is one number and not negative",
                where=where,
                got=value,
                expected=">= 0",
            )
        )
    return number


def as_points(x: Any, where: str) -> Float[Tensor, "n d"]:
    """Points as a float64 matrix of its own memory; a vector is of one dimension.

    Raises:
        ShapeError: no vector or matrix, or no points.
        DtypeError: no real numbers.
        DataError: NaN or infinite coordinates.

    Example:
        >>> as_points([0.0, 1.0], "x").shape
        torch.Size([2, 1])
    """
    found = as_real(x, where).to(torch.float64, copy=True)
    found = found[:, None] if found.dim() == 1 else found
    if found.dim() != 2 or not found.numel():
        raise ShapeError(
            message(
                "Points are a matrix, one a row",
                where=where,
                got=tuple(found.shape),
                expected="(n, d), or (n,) in one dimension",
            )
        )
    return check_finite(found, where)


def as_place(where: Any) -> tuple[int, int] | Float[Tensor, "n d"]:
    """Where a condition holds: a face (axis, side), or points.

    Raises:
        ConfigurationError: a pair that is no pair of integers.
        ShapeError, DtypeError, DataError: as :func:`as_points`.

    Example:
        >>> as_place([0, 1])
        (0, 1)
    """
    pair = isinstance(where, list | tuple) and len(where) == 2
    if pair and all(isinstance(k, Integral) for k in where):
        return int(where[0]), int(where[1])
    if isinstance(where, tuple) or (pair and all(isinstance(k, Real) for k in where)):
        raise ConfigurationError(
            message(
                "A condition holds on a face or at points",
                where="Condition.where",
                got=where,
                expected="integers (axis, side), or an array of points (n, d)",
            )
        )
    return as_points(where, "Condition.where")


def as_sides(bounds: Any, x: Float[Tensor, "n d"]) -> list[tuple[float, float]]:
    """Ends of every side of the box around points; where none are given, those of the points.

    Raises:
        DataError: points that are equal along an axis, and no bounds.
        ConfigurationError: bounds that are not one finite, increasing pair a dimension.

    Example:
        >>> as_sides((), torch.tensor([[0.0], [2.0]]))
        [(0.0, 2.0)]
    """
    if bounds is None or not len(bounds):
        ends = [(float(c.min()), float(c.max())) for c in x.T]
        equal = [axis for axis, (low, high) in enumerate(ends) if low == high]
        if equal:
            raise DataError(
                message(
                    "The points are equal along an axis, and have no box",
                    where="Points.x",
                    got=f"one value along axis {equal[0]}",
                    remedy="give bounds",
                )
            )
        return ends
    sides = [tuple(map(float, side)) for side in bounds]
    ordered = all(len(s) == 2 and all(map(math.isfinite, s)) and s[0] < s[1] for s in sides)
    if not ordered or len(sides) != x.shape[1]:
        raise ConfigurationError(
            message(
                "Bounds are finite low < high, a pair a dimension",
                where="Points.bounds",
                got=sides,
                expected=f"{x.shape[1]} pairs",
            )
        )
    return [(side[0], side[1]) for side in sides]


def check_derivative(derivative: Any, dim: int) -> tuple[int, ...] | None:
    """Orders of a derivative, one a dimension; None for u itself.

    Raises:
        ConfigurationError: not one integer >= 0 a dimension.

    Example:
        >>> check_derivative([2], 1)
        (2,)
    """
    if derivative is None:
        return None
    orders: list[Any] = list(derivative) if hasattr(derivative, "__iter__") else [None]
    whole = all(isinstance(o, Integral) and int(o) >= 0 for o in orders)
    if not whole or len(orders) != dim:
        raise ConfigurationError(
            message(
                "A derivative is given by its orders",
                where="derivative",
                got=derivative,
                expected=f"{dim} integer(s) >= 0, one a dimension: {(2,) + (0,) * (dim - 1)}, say",
            )
        )
    return tuple(int(o) for o in orders)
