"""Checks at the door: inputs and targets become float64 tensors, or a clear error is raised."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probkit.dates import to_days, utc_dates
from probkit.errors import (
    ConfigurationError,
    DataError,
    DtypeError,
    FitWarning,
    ShapeError,
    message,
)
from probkit.validation import unmasked

__all__ = ["MAX_CORE", "check_ranks", "check_targets", "target_scale", "to_inputs", "to_target"]

MAX_CORE = 8192


def to_inputs(
    x: Any, *, num_modes: int | None = None, columns: Sequence[str] | None = None
) -> tuple[Float[Tensor, "N K"], list[str]]:
    """Coordinates as a float64 tensor, with column names.

    Args:
        x: (N, K) tensor, array, or data frame; dates become days since
            1970-01-01 (in universal time), durations days; what is masked counts as missing.
        num_modes: the K expected, when predicting.
        columns: names of a data frame's columns to take, in this order; others are ignored. None
            for all. Tensors and arrays have none, and go by position.

    Raises:
        DtypeError: complex or text columns.
        ShapeError: not two-dimensional, fewer than two columns, or another K than fitted.
        DataError: NaN or infinite coordinates, names that are missing or not unique.
    """
    names = [str(c) for c in x.columns] if hasattr(x, "columns") else []
    if names:
        names, found = _frame_columns(x, names, columns)
    else:
        found = _columns(x)
    if not names:
        names = [f"x{k}" for k in range(len(found))]
    expected = "at least two columns" if num_modes is None else f"{num_modes} columns"
    if len(found) < 2 or (num_modes is not None and len(found) != num_modes):
        raise ShapeError(
            message(
                "The inputs have the wrong number of columns (one for each mode)",
                where="x",
                got=f"{len(found)} columns",
                expected=expected,
            )
        )
    values = [_to_float(column, name) for column, name in zip(found, names, strict=True)]
    for value, name in zip(values, names, strict=True):
        bad = np.flatnonzero(~np.isfinite(value))
        if len(bad):
            raise DataError(
                message(
                    f"Column {name!r} has {len(bad)} NaN or infinite coordinates",
                    where="x",
                    got=f"first rows {bad[:5].tolist()}",
                    expected="finite numbers",
                    remedy="drop these rows; missing values are allowed in the target only",
                )
            )
    device = x.device if isinstance(x, Tensor) else torch.device("cpu")
    return torch.as_tensor(np.stack(values, 1), device=device), names


def to_target(y: Any, num_rows: int, missing: str) -> tuple[Float[Tensor, " N"], Tensor]:
    """Targets as a float64 tensor and the mask of observed ones.

    Raises:
        ShapeError: not one value for each row of the inputs.
        DataError: no observed value, an infinite one, or a missing one with ``missing="raise"``.
    """
    value = y.detach().cpu().numpy() if isinstance(y, Tensor) else _plain(y, "y")
    if value.ndim == 2 and value.shape[1] == 1:
        value = value[:, 0]
    if value.shape != (num_rows,):
        raise ShapeError(
            message(
                "There must be one target for each row of the inputs",
                where="y",
                got=f"shape {value.shape}",
                expected=f"shape ({num_rows},)",
            )
        )
    value = _to_float(value, "y", is_target=True)
    infinite = np.flatnonzero(np.isinf(value))
    if len(infinite):
        raise DataError(
            message(
                "The target has infinite values",
                where="y",
                got=f"first rows {infinite[:5].tolist()}",
                expected="finite numbers, NaN where missing",
            )
        )
    observed = ~np.isnan(value)
    if missing == "raise" and not observed.all():
        raise DataError(
            message(
                f"The target has {int((~observed).sum())} missing values",
                where="y",
                got=f"first rows {np.flatnonzero(~observed)[:5].tolist()}",
                remedy='use missing="drop" to treat NaN as not observed',
            )
        )
    if not observed.any():
        raise DataError(
            message(
                "There is nothing to fit: no target is observed",
                where="y",
                got=f"{len(value)} rows, all missing",
                expected="at least one finite value",
            )
        )
    device = y.device if isinstance(y, Tensor) else torch.device("cpu")
    return torch.as_tensor(value, device=device), torch.as_tensor(observed, device=device)


def check_targets(y: Float[Tensor, " N"], likelihood: str, *, min_distinct: int = 2) -> None:
    """Counts must be non-negative integers, labels 0 or 1; warn of a constant real target.

    Raises:
        DataError: fewer than ``min_distinct`` targets, or with the first offending rows.
    """
    if len(y) < min_distinct:
        raise DataError(
            message(
                "One row is no table", where="y", got=f"{len(y)} observed", expected="at least two"
            )
        )
    if likelihood in ("poisson", "negative_binomial"):
        bad = (y < 0) | (y != y.round())
        expected = "non-negative integers"
    elif likelihood == "bernoulli":
        bad = (y != 0) & (y != 1)
        expected = "labels 0 or 1"
    else:
        if min_distinct > 1 and bool(y.amax() == y.amin()):
            warnings.warn("The target is constant; the fit says little.", FitWarning, stacklevel=3)
        return
    if bool(bad.any()):
        rows = torch.nonzero(bad)[:5, 0].tolist()
        raise DataError(
            message(
                f"{int(bad.sum())} targets do not fit the {likelihood} likelihood",
                where="y",
                got=f"rows {rows}: {y[rows].tolist()}",
                expected=expected,
            )
        )


def target_scale(y: Float[Tensor, " N"]) -> tuple[float, float]:
    """Mean and standard deviation of real targets; of constant ones their value and 1.

    They are taken in a unit, a power of two, in which squares are numbers.

    Raises:
        DataError: float64 cannot hold them, or differences of the targets.

    Example:
        >>> target_scale(torch.tensor([1e200, 3e200], dtype=torch.float64))
        (2e+200, 1e+200)
        >>> target_scale(torch.full((60,), 0.1, dtype=torch.float64))
        (0.1, 1.0)
    """
    low, high = float(y.amin()), float(y.amax())
    if low == high:
        return low, 1.0
    unit = math.ldexp(1.0, math.frexp(max(abs(low), abs(high)))[1] - 1)
    scaled = y / unit
    offset, scale = unit * float(scaled.mean()), unit * float(scaled.std(unbiased=False))
    if not (math.isfinite(offset) and scale > 0 and math.isfinite((high - low) / scale)):
        raise DataError(
            message(
                "The spread of the targets is beyond float64",
                where="y",
                got=f"values from {low:.3g} to {high:.3g}",
                expected="a standard deviation that float64 can hold",
                remedy="choose another unit",
            )
        )
    return offset, scale


def check_ranks(
    rank: int | Sequence[int], sizes: Sequence[int], structure: str, *, where: str = "rank"
) -> tuple[int, ...]:
    """One rank a mode, capped at the mode's number of distinct coordinates with a warning.

    Raises:
        ConfigurationError: ranks below one, a wrong number of them, unequal ranks for CP, or a
            core of more than ``MAX_CORE`` (8 192) weights.
    """
    given = [rank] * len(sizes) if isinstance(rank, int | Integral) else list(rank)
    if len(given) != len(sizes) or any(
        isinstance(r, bool) or not isinstance(r, Integral) or r < 1 for r in given
    ):
        raise ConfigurationError(
            message(
                "Ranks must be positive integers, one for all modes or one for each",
                where=where,
                got=repr(rank),
                expected=f"an integer >= 1 or {len(sizes)} of them",
            )
        )
    ranks = [int(r) for r in given]
    if structure == "cp" and len(set(ranks)) > 1:
        raise ConfigurationError(
            message(
                "A CP decomposition has the same rank in every mode",
                where=where,
                got=ranks,
                remedy='use structure="tucker" for unequal ranks',
            )
        )
    if structure == "tucker":
        capped = [min(r, d) for r, d in zip(ranks, sizes, strict=True)]
        if capped != ranks:
            warnings.warn(
                f"Ranks {ranks} exceed the number of distinct coordinates {list(sizes)}; "
                f"{capped} are used.",
                FitWarning,
                stacklevel=4,
            )
        ranks = capped
        size = math.prod(ranks)
        if size > MAX_CORE:
            memory = 8 * 8 * size**2 / 2**30
            raise ConfigurationError(
                message(
                    "The core is too large for its full covariance",
                    where=where,
                    got=f"{ranks}: {size} weights, about {memory:.1f} GiB",
                    expected=f"at most {MAX_CORE} weights",
                    remedy='use smaller ranks or structure="cp"',
                )
            )
    return tuple(ranks)


def _frame_columns(
    x: Any, names: list[str], wanted: Sequence[str] | None
) -> tuple[list[str], list[np.ndarray]]:
    """Columns of a data frame by name."""
    label = dict(zip(names, x.columns, strict=True))
    if len(label) < len(names):
        raise DataError(
            message("Two columns have the same name", where="x", got=names, remedy="rename one")
        )
    chosen = names if wanted is None else list(wanted)
    missing = [name for name in chosen if name not in label]
    if missing:
        raise DataError(
            message(
                f"The data frame has no column {', '.join(map(repr, missing))}",
                where="x",
                got=names,
                expected=f"the columns of the fit, {chosen}",
                remedy="rename its columns, or give an array, which goes by position",
            )
        )
    return chosen, [_cells(x[label[name]]) for name in chosen]


def _cells(column: Any) -> np.ndarray:
    dates = utc_dates(column, str(column.name))  # of a time zone, which to_numpy would make objects
    return column.to_numpy() if dates is None else dates


def _columns(x: Any) -> list[np.ndarray]:
    array = x.detach().cpu().numpy() if isinstance(x, Tensor) else _plain(x, "x")
    if array.ndim != 2:
        raise ShapeError(
            message(
                "The inputs must be a table",
                where="x",
                got=f"shape {array.shape}",
                expected="(N, K)",
            )
        )
    return [array[:, k] for k in range(array.shape[1])]


def _plain(values: Any, where: str) -> np.ndarray:
    return np.asarray(unmasked(values, where, real=True))


def _to_float(column: Any, name: str, *, is_target: bool = False) -> np.ndarray:
    dates = utc_dates(column, name)
    column = np.asarray(column) if dates is None else dates
    if column.dtype.kind in "mM":  # a duration too: its raw count depends on the unit of storage
        return to_days(column)
    if column.dtype.kind in "bif" or column.dtype.kind == "u":
        return column.astype(np.float64)
    if column.dtype.kind == "c":
        raise DtypeError(
            message("Complex values have no meaning here", where=name, got=str(column.dtype))
        )
    try:
        return column.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DtypeError(
            message(
                "Text cannot be a target" if is_target else "A text column cannot be a coordinate",
                where=name,
                got=f"{column.dtype}, for example {column.flat[0]!r}",
                expected="numbers" if is_target else "numbers or dates",
                remedy="convert it to numbers, NaN where missing"
                if is_target
                else 'code the categories as integers and use kernels="categorical" for the mode',
            )
        ) from error
