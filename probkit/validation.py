"""Checks at the door that every family needs: numbers, words, and arrays of numbers.

Each returns what it checked, so that a check stands where the value is first used, and raises a
typed error that names the argument, what was got and what was expected. What only one family knows
(ranks, bounds, faces of a box) is in that family's ``validation``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probkit.dates import to_days, utc_dates
from probkit.errors import ConfigurationError, DataError, DtypeError, message

__all__ = [
    "all_finite",
    "as_real",
    "as_tensor",
    "as_times",
    "check_choice",
    "check_finite",
    "check_levels",
    "check_positive",
    "check_quantile",
    "check_whole",
    "require_all_positive",
    "require_choice",
    "require_not_negative",
    "require_positive",
    "require_whole",
    "unknown",
    "unmasked",
]


def check_positive(name: str, value: Any) -> float:
    """A finite positive number as a float.

    Raises:
        ConfigurationError: anything else; a boolean is no number.

    Example:
        >>> check_positive("bandwidth", 2)
        2.0
    """
    number = isinstance(value, Real) and not isinstance(value, bool)  # NumPy's too
    if not number or not math.isfinite(value) or value <= 0:
        raise ConfigurationError(
            message("This must be a positive number", where=name, got=repr(value), expected="> 0")
        )
    return float(value)


def check_whole(name: str, value: Any, low: int, high: int, *, even: bool = False) -> int:
    """An integer in [low, high].

    Raises:
        ConfigurationError: anything else, or an odd one where ``even``.

    Example:
        >>> check_whole("height", 3, 1, 24)
        3
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)  # NumPy's too
    if not whole or not low <= value <= high or (even and value % 2):
        kind = "an even integer" if even else "an integer"
        raise ConfigurationError(
            message(
                f"This must be {kind}", where=name, got=repr(value), expected=f"[{low}, {high}]"
            )
        )
    return int(value)


def check_levels(name: str, values: Any, *, ends: bool = False) -> tuple[float, ...]:
    """Probabilities strictly between 0 and 1, such as the levels of quantiles.

    Args:
        name: the argument.
        values: the levels, one at least; a number is one level.
        ends: whether 0 and 1 are possible too.

    Raises:
        ConfigurationError: one is not, or there is none; the message names the first.

    Example:
        >>> check_levels("quantiles", [0.05, 0.95]), check_levels("quantiles", 0.5)
        ((0.05, 0.95), (0.5,))
    """
    expected = "from 0 to 1" if ends else "strictly between 0 and 1"
    given = values.tolist() if isinstance(values, Tensor | np.ndarray) else values
    levels = (
        tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
    )
    if not levels:
        raise ConfigurationError(
            message("There is no level", where=name, got=repr(values), expected=f"one {expected}")
        )
    for value in levels:
        number = isinstance(value, Real) and not isinstance(value, bool)
        if not number or not (0 < value < 1 or (ends and 0 <= value <= 1)):
            raise ConfigurationError(
                message(
                    "This must be a probability", where=name, got=repr(value), expected=expected
                )
            )
    return tuple(float(value) for value in levels)


def check_quantile(name: str, q: Any, *, ends: bool = False) -> float | tuple[float, ...]:
    """One level as a number, or several as a tuple; else as :func:`check_levels`.

    Raises:
        ConfigurationError: as for :func:`check_levels`.

    Example:
        >>> check_quantile("q", 0.5), check_quantile("q", [0.5])
        (0.5, (0.5,))
    """
    levels = check_levels(name, q, ends=ends)
    one = isinstance(q, Real) or (isinstance(q, Tensor | np.ndarray) and q.ndim == 0)
    return levels[0] if one else levels


def check_choice(what: str, name: str, value: Any, choices: Iterable[Any]) -> Any:
    """One of a few words or values.

    Args:
        what: the kind of thing, in one word, for the message: "Unknown method".
        name: the argument.
        value: what was given.
        choices: what is possible.

    Raises:
        ConfigurationError: the value is none of them.

    Example:
        >>> check_choice("order", "order", "C", ["C", "F"])
        'C'
    """
    known = list(choices)
    if value not in known:
        raise unknown(what, name, value, known)
    return value


def unknown(what: str, name: str, value: Any, choices: Iterable[Any]) -> ConfigurationError:
    """The error of :func:`check_choice`, to raise where a chain of cases ends.

    Example:
        >>> print(unknown("noise", "kind", "cauchy", ["laplace", "gaussian"]))
        Unknown noise (kind: got 'cauchy', expected one of laplace, gaussian).
    """
    return ConfigurationError(
        message(
            f"Unknown {what}",
            where=name,
            got=repr(value),
            expected="one of " + ", ".join(map(str, choices)),
        )
    )


def as_tensor(value: Any, where: str) -> Tensor:
    """A tensor of an array, a list, a column or a tensor, detached; its dtype is kept.

    Raises:
        DtypeError: what is no array of numbers (text, objects, dates).
        DataError: masked values of a dtype without NaN; those of other masked arrays become NaN.

    Example:
        >>> as_tensor([1, 2], "y").dtype
        torch.int64
    """
    if isinstance(value, Tensor):
        return value.detach()
    value = unmasked(value, where)
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "fiubc":
            raise TypeError(str(array.dtype))
        # torch takes native byte order only, and warns of memory that it must not write to
        array = array.astype(array.dtype.newbyteorder("="), copy=not array.flags.writeable)
        return torch.as_tensor(np.ascontiguousarray(array).reshape(array.shape))
    except (TypeError, ValueError) as error:
        raise DtypeError(
            message("Not an array of numbers", where=where, got=_kind(value), expected="numbers")
        ) from error


def as_real(value: Any, where: str) -> Tensor:
    """As :func:`as_tensor`, for values that cannot be complex.

    Raises:
        DtypeError: complex numbers, or no numbers at all.
        DataError: as for :func:`as_tensor`.
    """
    found = as_tensor(value, where)
    if found.is_complex():
        raise DtypeError(message("Values must be real numbers", where=where, got=str(found.dtype)))
    return found


def as_times(value: Any, where: str) -> Tensor:
    """Times as a float64 tensor of their own memory; dates become days since 1970-01-01.

    Dates are those that :func:`probkit.dates.utc_dates` knows; durations become days, and what is
    missing or masked NaN. A float64 number of days tells moments about a microsecond apart: give
    times that lie closer as numbers.

    Raises:
        DtypeError: neither real numbers nor dates.
        DataError: as for :func:`as_tensor`, or a date that cannot be read.

    Example:
        >>> as_times(np.array(["1970-01-02", "1970-01-03T12"], dtype="datetime64[h]"), "t").tolist()
        [1.0, 2.5]
    """
    if not isinstance(value, Tensor):
        value = unmasked(value, where, real=True)
        dates = utc_dates(value, where)
        array = np.asarray(value) if dates is None else dates
        value = to_days(array) if array.dtype.kind in "Mm" else array
    return as_real(value, where).to(torch.float64, copy=True)


def unmasked(value: Any, where: str, *, real: bool = False) -> Any:
    """A masked array as a plain one, NaN (or NaT) where it is masked; anything else as it is.

    Args:
        value: an array, a list of arrays, or anything else.
        where: the argument, for the message.
        real: whether integers may become float64 to hold NaN.

    Raises:
        DataError: a masked value of integers or other dtypes without NaN.

    Example:
        >>> unmasked(np.ma.masked_array([1.0, 99.0], mask=[False, True]), "y").tolist()
        [1.0, nan]
    """
    if isinstance(value, list | tuple) and any(isinstance(v, np.ma.MaskedArray) for v in value):
        value = np.ma.array(value)
    if not isinstance(value, np.ma.MaskedArray):
        return value
    count = int(np.ma.count_masked(value))
    if count == 0:
        return value.data
    if real and value.dtype.kind in "iub":
        value = value.astype(np.float64)
    if value.dtype.kind in "mM":
        return value.filled(np.array("NaT", value.dtype))
    if value.dtype.kind in "fc":
        return value.filled(np.nan)
    raise DataError(
        message(
            f"Masked values need a dtype that has NaN, and {count} are masked",
            where=where,
            got=str(value.dtype),
            expected="floating-point numbers",
            remedy="convert the array with astype(float)",
        )
    )


def check_finite(values: Tensor, where: str, *, remedy: str | None = None) -> Tensor:
    """The values, none of which is NaN or infinite.

    Raises:
        DataError: some are; the message counts them and says where the first is.

    Example:
        >>> check_finite(torch.tensor([1.0, float("nan")]), "y")
        Traceback (most recent call last):
        probkit.errors.DataError: 1 value is NaN or infinite, the first at [1] (y: expected ...
    """
    if not all_finite(values):
        bad = ~torch.isfinite(values)
        first, count = [int(i) for i in bad.nonzero()[0]], int(bad.sum())
        counted = "1 value is" if count == 1 else f"{count} values are"
        raise DataError(
            message(
                f"{counted} NaN or infinite, the first at {first}",
                where=where,
                expected="finite numbers",
                remedy=remedy,
            )
        )
    return values


def all_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite.

    A finite sum has finite terms, and takes one pass without a copy; only where it is not (sums of
    finite numbers can overflow) is every value looked at.

    Example:
        >>> all_finite(torch.tensor([3e38, 3e38])), all_finite(torch.tensor([1.0, float("inf")]))
        (True, False)
    """
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


def require_positive(settings: object, *names: str) -> None:
    """Check that the named attributes are finite positive numbers.

    Raises:
        ConfigurationError: one is not; the message names it.
    """
    require_all_positive(**{name: getattr(settings, name) for name in names})


def require_all_positive(**settings: Any) -> None:
    """Check that all values are finite positive numbers.

    Raises:
        ConfigurationError: one is not; the message names it.
    """
    for name, value in settings.items():
        if not (_is_finite_number(value) and value > 0):
            raise ConfigurationError(
                message("A setting must be positive", where=name, got=repr(value), expected="> 0")
            )


def require_whole(settings: object, *names: str, low: int = 1) -> None:
    """Check that the named attributes are integers of at least ``low``.

    Raises:
        ConfigurationError: one is not; the message names it.
    """
    for name in names:
        value = getattr(settings, name)
        if isinstance(value, bool) or not isinstance(value, Integral) or value < low:
            least = "must be positive" if low == 1 else f"must be at least {low}"
            raise ConfigurationError(
                message(
                    f"A count {least}", where=name, got=repr(value), expected=f"an integer >= {low}"
                )
            )


def require_choice(settings: object, name: str, choices: Sequence[object]) -> None:
    """Check that the named attribute is one of some words or values.

    Raises:
        ConfigurationError: it is not; the message names it.
    """
    check_choice("setting", name, getattr(settings, name), choices)


def require_not_negative(settings: object, *names: str) -> None:
    """Check that the named attributes are finite numbers of at least zero.

    Raises:
        ConfigurationError: one is not; the message names it.
    """
    for name in names:
        value = getattr(settings, name)
        if not (_is_finite_number(value) and value >= 0):
            raise ConfigurationError(
                message(
                    "A setting must not be negative", where=name, got=repr(value), expected=">= 0"
                )
            )


def _is_finite_number(value: Any) -> bool:
    if isinstance(value, Tensor):
        value = value.item() if value.numel() == 1 else None
    number = isinstance(value, Real) and not isinstance(value, bool)  # NumPy's too
    return number and math.isfinite(value)


def _kind(value: Any) -> str:
    dtype = getattr(value, "dtype", None)
    return type(value).__name__ if dtype is None else f"{type(value).__name__} of {dtype}"
