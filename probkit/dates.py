"""Dates of any kind as NumPy's, and as numbers of days."""

from __future__ import annotations

from datetime import UTC
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probkit.errors import DataError, message

__all__ = ["to_days", "utc_dates"]


def utc_dates(values: Any, where: str) -> NDArray[Any] | None:
    """Dates as NumPy's, in universal time and NaT where missing; None if they are no dates.

    Args:
        values: NumPy's dates, a column or index of pandas with or without a time zone, periods
            (their starts), or a list of the standard library's dates and moments. One without a
            time zone is taken as it is.
        where: the argument, for the message.

    Raises:
        DataError: a date of another calendar that has no name in this one.

    Example:
        >>> from datetime import datetime, timedelta, timezone
        >>> east = timezone(timedelta(hours=2))
        >>> utc_dates([datetime(2020, 1, 1, tzinfo=east), None], "t").astype(str).tolist()
        ['2019-12-31T22:00:00.000000', 'NaT']
    """
    dtype = getattr(values, "dtype", None)
    if (
        dtype is not None and getattr(dtype, "tz", None) is not None
    ):  # pandas' column, which NumPy sees as objects
        zoned: NDArray[Any] = values.to_numpy(dtype=f"datetime64[{dtype.unit}]")
        return zoned
    array = _array(values)
    if array is None or array.dtype.kind == "M":
        return array
    if array.dtype != object:
        return None
    cells = array.ravel().tolist()
    present = [v for v in cells if not _is_missing(v)]
    if not present or not all(map(_is_date, present)):
        return None
    try:
        moments = [np.datetime64("NaT") if _is_missing(v) else _in_utc(v) for v in cells]
    except (ValueError, OverflowError) as error:
        raise DataError(
            message(
                f"A date cannot be read: {error}",
                where=where,
                expected="dates of the Gregorian calendar",
            )
        ) from error
    return np.array(moments, dtype="datetime64[us]").reshape(array.shape)


def to_days(dates: NDArray[Any]) -> NDArray[np.float64]:
    """NumPy's dates as days since 1970-01-01, and its durations as days; NaT becomes NaN.

    Example:
        >>> to_days(np.array(["1970-02-01"], dtype="datetime64[D]")).tolist()
        [31.0]
    """
    past = dates - np.datetime64(0, "s") if dates.dtype.kind == "M" else dates
    days: NDArray[np.float64] = past / np.timedelta64(1, "D")
    return days


def _array(values: Any) -> NDArray[Any] | None:
    """The array, or None of what makes none, such as rows of different lengths."""
    try:
        return np.asarray(values)
    except ValueError:
        return None


def _is_missing(value: Any) -> bool:
    # pandas' marks by name: this module does without pandas
    marked = value is None or type(value).__name__ in ("NaTType", "NAType")
    return marked or (isinstance(value, float | np.datetime64) and value != value)


def _is_date(value: Any) -> bool:
    return isinstance(value, np.datetime64) or hasattr(value, "timetuple") or _is_period(value)


def _is_period(value: Any) -> bool:
    return hasattr(value, "to_timestamp") and hasattr(value, "freqstr")


def _in_utc(value: Any) -> np.datetime64:
    if _is_period(value):
        value = value.to_timestamp()
    if hasattr(value, "to_datetime64"):
        value = value.to_datetime64()
    elif getattr(value, "tzinfo", None) is not None:
        value = value.astimezone(UTC).replace(tzinfo=None)
    if isinstance(value, np.datetime64):
        return value.astype("datetime64[us]")
    return np.datetime64(value.isoformat(), "us")
