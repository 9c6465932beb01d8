"""Checks at the door, before any budget is touched.

Records outside the domain are clipped and nothing is reported: an error that depends on the data
would itself be a release. What is refused (a wrong shape, a wrong dtype, NaN) is a fault of the
caller's program; such an error stops it, and its text is not private.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probkit.errors import ConfigurationError, DtypeError, ShapeError, message
from probkit.privacy.errors import PrivateDataError
from probkit.validation import all_finite

__all__ = ["as_points", "check_box", "check_finite"]


def as_points(values: Any, dim: int, name: str) -> Tensor:
    """A matrix (N, dim) of float32 or float64, from a tensor, an array or a data frame.

    Raises:
        DtypeError: integers, booleans, complex numbers or half precision.
        ShapeError: not a matrix of dim columns, or no rows.
    """
    if not isinstance(values, Tensor):
        array = np.asarray(values)
        if array.dtype.kind not in "f" or array.dtype.itemsize not in (4, 8):
            _refuse_dtype(name, array.dtype)
        values = torch.from_numpy(np.ascontiguousarray(array))
    if values.dtype not in (torch.float32, torch.float64):
        _refuse_dtype(name, values.dtype)
    if values.dim() != 2 or values.shape[1] != dim or len(values) == 0:
        raise ShapeError(
            message(
                "Points must be the rows of a matrix",
                where=name,
                got=tuple(values.shape),
                expected=f"(N, {dim}) with N >= 1",
                remedy="reshape a single coordinate to (N, 1)",
            )
        )
    return values.detach()


def check_finite(values: Tensor, *, drop: bool, name: str) -> tuple[Tensor, Tensor | None]:
    """The rows without NaN or infinity; any such row is refused unless ``drop``.

    Returns:
        The rows, and where they were among all; None if all are kept.

    Raises:
        PrivateDataError: a row is not finite.
    """
    if all_finite(values):
        return values, None
    if not drop:
        raise PrivateDataError(
            message(
                "Some records are NaN or infinite",
                where=name,
                expected="finite numbers",
                remedy="fill them in by a rule that looks at one row only; or, under the relation "
                'add_remove, on_bad="drop"',
            )
        )
    good = torch.isfinite(values).all(-1)
    return values[good], good


def check_box(bounds: Any, dim: int) -> tuple[list[float], list[float]]:
    """Bounds of every coordinate, from one pair (low, high) for all or one pair each.

    Raises:
        ConfigurationError: missing, not finite, or low >= high. Bounds taken from the data would
            leak them, so there is no default.
    """
    if bounds is None:
        raise ConfigurationError(
            message(
                "The domain must be declared",
                where="bounds",
                expected="(low, high), or one such pair a coordinate",
                remedy="state what the values can be at all: bounds computed from the data leak it",
            )
        )
    pairs: Sequence[Any] = bounds if np.ndim(bounds) == 2 else [bounds] * dim
    table = np.asarray(pairs, dtype=np.float64)
    if table.shape != (dim, 2):
        raise ConfigurationError(
            message(
                "Bounds have the wrong shape", where="bounds", got=table.shape, expected=(dim, 2)
            )
        )
    if not np.isfinite(table).all() or (table[:, 0] >= table[:, 1]).any():
        raise ConfigurationError(
            message(
                "Bounds must be finite, low < high",
                where="bounds",
                got=bounds,
                expected="(low, high), or one such pair a coordinate",
            )
        )
    return table[:, 0].tolist(), table[:, 1].tolist()


def _refuse_dtype(name: str, dtype: object) -> None:
    raise DtypeError(
        message(
            "Points must be float32 or float64",
            where=name,
            got=dtype,
            remedy="convert them, and state bounds that fit the converted values",
        )
    )
