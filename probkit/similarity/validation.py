"""Checks at the door, before any budget is touched.

Records outside the domain are clipped and nothing is reported: an error that depends on the data
would itself be a release. What is refused (a wrong shape, a wrong dtype, NaN) is a fault of the
caller's program; such an error stops it, and its text is not private.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probkit.errors import ConfigurationError, DtypeError, ShapeError, message
from probkit.privacy.errors import PrivateDataError
from probkit.random import Seed, as_generator, spawn_seeds
from probkit.validation import all_finite, as_real, as_tensor, check_positive, check_whole

__all__ = [
    "as_points",
    "check_box",
    "check_center",
    "check_finite",
    "check_length",
    "check_lengths",
    "count_owners",
    "public_seed",
]

_LARGEST_SEED = 2**63 - 1


def as_points(values: Any, dim: int, name: str) -> Tensor:
    """A matrix (N, dim) of float32 or float64, from a tensor, an array or a data frame.

    Raises:
        DtypeError: integers, booleans, complex numbers, half precision, or no numbers at all.
        ShapeError: not a matrix of dim columns, or no rows.
    """
    values = as_tensor(values, name)
    if values.dtype not in (torch.float32, torch.float64):
        raise DtypeError(
            message(
                "Points must be float32 or float64",
                where=name,
                got=values.dtype,
                remedy="convert them, and state bounds that fit the converted values",
            )
        )
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
    return values


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


def count_owners(users: Any, length: int) -> Counter[Any]:
    """How many rows every user has.

    A limit of rows holds only if equal ids count as one user. As a key, a tensor without dimensions
    is equal to no other, and neither is NaN: tensors are read as numbers, and what is missing is
    refused. No message names an id.

    Args:
        users: (B,) an id a row: a list, an array, a column or a tensor.
        length: B.

    Raises:
        DtypeError: no sequence.
        ShapeError: not one id a row.
        PrivateDataError: an id is missing (None, NaN, NaT), or cannot be counted, as a list cannot.

    Example:
        >>> count_owners(torch.tensor([7, 7, 8]), 3) == {7: 2, 8: 1}
        True
    """
    shape = tuple(getattr(users, "shape", (length,)))
    if len(shape) != 1:  # iterating over a table would give the names of its columns
        raise ShapeError(message("One user a record", where="users", got=shape, expected=(length,)))
    if isinstance(users, Mapping) or not isinstance(users, Iterable):
        raise DtypeError(
            message(
                "Users must be a sequence",
                where="users",
                got=type(users).__name__,
                expected="one id a record",
            )
        )
    owners = [_owner(user) for user in (users.tolist() if isinstance(users, Tensor) else users)]
    if len(owners) != length:
        raise ShapeError(
            message("One user a record", where="users", got=len(owners), expected=length)
        )
    if any(_is_missing(owner) for owner in owners):
        raise PrivateDataError(
            message(
                "The owner of some rows is missing",
                where="users",
                expected="an id for every row, no None, NaN or NaT",
                remedy="leave these rows out, or give an id of its own to every user",
            )
        )
    try:
        return Counter(owners)
    except TypeError as error:
        raise PrivateDataError(
            message(
                "Some ids of users cannot be counted",
                where="users",
                expected="numbers, text, or other values that can be keys of a dict",
            )
        ) from error


def _owner(user: Any) -> Any:
    """An id as a key: what tensors hold, within tuples too."""
    if isinstance(user, Tensor):
        return user.tolist()
    return tuple(map(_owner, user)) if type(user) is tuple else user


def _is_missing(owner: Any) -> bool:
    """Whether an id is None or equal to no id, itself included: NaN and NaT."""
    if type(owner) is tuple:  # which compares its members by identity first
        return any(map(_is_missing, owner))
    try:
        return owner is None or not bool(owner == owner)
    except (TypeError, ValueError):  # pandas.NA, arrays
        return True


def check_box(bounds: Any, dim: int) -> tuple[list[float], list[float]]:
    """Bounds of every coordinate, from one pair (low, high) for all or one pair each.

    Raises:
        ConfigurationError: missing, of another shape, not finite, or low >= high. Bounds taken from
            the data would leak them, so there is no default.
        DtypeError: no real numbers.
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
    given = as_real(bounds, "bounds").to(torch.float64).cpu().numpy()
    table = given if given.ndim == 2 else np.broadcast_to(given, (dim, *given.shape))
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


def check_center(center: Any, dim: int) -> list[float]:
    """The middle of the domain, d finite numbers; None is the origin.

    Raises:
        ConfigurationError: another shape, or numbers that are not finite: every answer would be
            NaN, and the budget spent.
        DtypeError: no real numbers.

    Example:
        >>> check_center(None, 2), check_center((1, 2.5), 2)
        ([0.0, 0.0], [1.0, 2.5])
    """
    if center is None:
        return [0.0] * dim
    middle = as_real(center, "center").to(torch.float64)
    if middle.shape != (dim,) or not all_finite(middle):
        raise ConfigurationError(
            message(
                "The centre must be d finite numbers",
                where="center",
                got=center if middle.shape == (dim,) else tuple(middle.shape),
                expected=f"{dim} finite numbers",
            )
        )
    return [float(value) for value in middle]


def check_length(name: str, value: Any) -> float:
    """A finite positive number, which may also be an array or a tensor without dimensions.

    Raises:
        ConfigurationError: anything else.

    Example:
        >>> check_length("bandwidth", torch.tensor(0.5))
        0.5
    """
    scalar = isinstance(value, Tensor | np.ndarray) and value.ndim == 0
    return check_positive(name, value.item() if scalar else value)


def check_lengths(name: str, values: Any) -> list[float]:
    """One positive number, or each of several.

    Raises:
        ConfigurationError: none, or one that is not a positive number.

    Example:
        >>> check_lengths("bandwidth", 2), check_lengths("bandwidth", np.array([0.5, 1.0]))
        ([2.0], [0.5, 1.0])
    """
    several = isinstance(values, Iterable) and not isinstance(values, str)
    if not several or getattr(values, "ndim", 1) == 0:
        return [check_length(name, values)]
    lengths = [check_length(name, value) for value in values]
    if not lengths:
        raise ConfigurationError(
            message("There must be one at least", where=name, got=values, expected="> 0")
        )
    return lengths


def public_seed(seed: Seed) -> int:
    """The seed as the whole number that a release states and whoever reads it draws from again.

    None and a generator give a fresh number, drawn here once: parts that are to be merged need one
    number for all.

    Raises:
        ConfigurationError: a negative number, or one of more than 63 bits.
        DtypeError: no seed at all.

    Example:
        >>> public_seed(3), public_seed(None) == public_seed(None)
        (3, False)
    """
    if isinstance(seed, Integral) and not isinstance(seed, bool):
        return check_whole("seed", seed, 0, _LARGEST_SEED)
    return spawn_seeds(as_generator(seed), 1)[0]
