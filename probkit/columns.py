"""One column of a data frame as numbers: a coordinate of any kind, or a target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from probkit.dates import to_days, utc_dates
from probkit.errors import DataError, message
from probkit.frames import import_pandas

__all__ = ["read_coordinate", "read_target"]


def read_coordinate(
    column: Any, label: str, name: str, levels: Sequence[str] | None = None
) -> tuple[np.ndarray, str, tuple[str, ...] | None]:
    """Coordinates (N,), their kind ("numeric", "datetime" or "category") and names of its levels.

    Dates become days since 1970-01-01, durations days, and names their codes.

    Args:
        column: a column of pandas.
        label: its name.
        name: where the table came from, for messages.
        levels: names in the order of their codes, where these are known already.

    Raises:
        DataError: values that are missing, infinite or complex, a few words among numbers, or a
            name that is not among the ``levels``.
    """
    pd = import_pandas()
    if levels is not None:
        return _codes(column, label, name, levels), "category", tuple(levels)
    values = utc_dates(column, label)
    if values is None:
        values = column.to_numpy()
        if values.dtype == object or pd.api.types.is_string_dtype(column):
            dates = _iso_dates(column)
            if dates is None:
                _check_not_mixed(column, label, name)
                codes, found = pd.factorize(column, sort=True)
                _check_finite(np.where(codes < 0, np.nan, codes), label, name)
                return codes.astype(np.float64), "category", tuple(map(str, found))
            values = dates
    if values.dtype.kind in "mM":
        days = to_days(values)
        _check_finite(days, label, name)
        return days, "datetime" if values.dtype.kind == "M" else "numeric", None
    _check_real(values, label, name)
    numbers = values.astype(np.float64)
    _check_finite(numbers, label, name)
    return numbers, "numeric", None


def read_target(column: Any, label: str, name: str) -> np.ndarray:
    """Targets (N,), NaN where missing; the arguments are as for :func:`read_coordinate`.

    Raises:
        DataError: text, dates, durations or complex numbers.
    """
    pd = import_pandas()
    dates = utc_dates(column, label)
    if dates is not None or column.to_numpy().dtype.kind == "m":
        raise DataError(
            message(
                f"Column {label!r} holds dates or durations, which cannot be a target",
                where=name,
                got=str(column.dtype),
                expected="numbers, empty where missing",
                remedy="name another target, or convert it to numbers in a unit of your choice",
            )
        )
    _check_real(column.to_numpy(), label, name)
    values: np.ndarray = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    unreadable = np.isnan(values) & column.notna().to_numpy()
    if unreadable.any():
        rows = np.flatnonzero(unreadable)[:5]
        raise DataError(
            message(
                f"Column {label!r} is not numeric",
                where=name,
                got=f"{_counted(rows)}: {column.iloc[rows].tolist()}",
                expected="numbers, empty where missing",
            )
        )
    return values


def _codes(column: Any, label: str, name: str, levels: Sequence[str]) -> np.ndarray:
    """Places of the names among known levels."""
    missing = column.isna().to_numpy()
    _check_finite(np.where(missing, np.nan, 0.0), label, name)
    place = {level: float(code) for code, level in enumerate(levels)}
    cells = [str(value) for value in column]
    unknown = np.flatnonzero([cell not in place for cell in cells])
    if len(unknown):
        rows = unknown[:5]
        raise DataError(
            message(
                f"Coordinate {label!r} has {len(unknown)} names that are not among its levels",
                where=name,
                got=f"{_counted(rows)}: {[cells[row] for row in rows]}",
                expected="one of " + ", ".join(levels[:20]) + ", ..." * (len(levels) > 20),
            )
        )
    return np.array([place[cell] for cell in cells])


def _iso_dates(column: Any) -> np.ndarray | None:
    """ISO dates in universal time, or None if the strings are anything else."""
    pd = import_pandas()
    parsed = pd.to_datetime(column, format="ISO8601", errors="coerce", utc=True)
    if bool(parsed.notna().all()):
        return utc_dates(parsed, str(column.name))
    return None


def _check_real(values: np.ndarray, label: str, name: str) -> None:
    if values.dtype.kind == "c":
        raise DataError(
            message(
                f"Column {label!r} holds complex numbers",
                where=name,
                got=str(values.dtype),
                expected="real numbers",
                remedy="make columns of the real and the imaginary part",
            )
        )


def _check_not_mixed(column: Any, label: str, name: str) -> None:
    """A few unreadable cells among numbers are a fault of the file, not a categorical column."""
    text = import_pandas().to_numeric(column, errors="coerce").isna().to_numpy() & column.notna()
    rows = np.flatnonzero(text)
    if len(rows) == 0 or 2 * len(rows) > len(column):
        return
    raise DataError(
        message(
            f"Coordinate {label!r} mixes numbers and text",
            where=name,
            got=f"{_counted(rows[:5])}: {column.iloc[rows[:5]].tolist()}",
            expected="numbers only, ISO dates only, or names of categories",
        )
    )


def _counted(rows: np.ndarray) -> str:
    """Rows as a reader of the file counts them: from 1, below the line of names."""
    return f"data rows {(rows + 1).tolist()}"


def _check_finite(values: np.ndarray, label: str, name: str) -> None:
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise DataError(
            message(
                f"Coordinate {label!r} has {len(bad)} missing or infinite values",
                where=name,
                got=_counted(bad[:5]),
                remedy="drop these rows; only the target may be missing",
            )
        )
