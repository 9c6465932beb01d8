"""Tables of entries from files: CSV, Parquet and netCDF to coordinates and a target.

A table is long: one row an entry, one column a coordinate. A gridded netCDF variable becomes long
by its coordinates, NaN cells counting as missing. Dates become days since 1970-01-01.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probkit.columns import read_coordinate, read_target
from probkit.errors import DataError, message
from probkit.frames import existing_file, import_pandas, read_frame

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "ROW",
    "Table",
    "read_series",
    "read_table",
    "table_from_arrays",
    "table_from_frame",
    "write_table",
]

ROW = "row number"
"""input of a series without times"""


@dataclass(frozen=True)
class Table:
    """Entries of a tensor: coordinates, target, and what the columns mean.

    Attributes:
        x: (N, K) coordinates, float64.
        y: (N,) observed targets.
        inputs: names of the K coordinates.
        target: name of the target.
        kinds: "numeric", "datetime" (days since 1970-01-01) or "category" for each input.
        levels: names of the levels of categorical inputs, in the order of their codes.
        num_missing: rows or cells without a target, which were dropped (:func:`read_series`: kept).
        name: where the table came from.
    """

    x: Float[Tensor, "N K"]
    y: Float[Tensor, " N"]
    inputs: tuple[str, ...]
    target: str
    kinds: tuple[str, ...]
    levels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    num_missing: int = 0
    name: str = "table"


def read_table(
    path: str | Path,
    *,
    inputs: Sequence[str] | None = None,
    target: str | None = None,
    needs_target: bool = True,
    levels: Mapping[str, Sequence[str]] | None = None,
) -> Table:
    """Read a CSV, Parquet or netCDF file.

    Args:
        path: the file; its suffix tells the format (.csv, .parquet, .nc).
        inputs: coordinate columns; None for all but the target (netCDF: the dimensions).
        target: target column; None for the last one (netCDF: the only gridded variable).
        needs_target: False for a file of points to predict at; ``y`` is then NaN.
        levels: names of the levels of categorical columns, in the order of their codes, as an
            earlier table has them; None to find them in the file.

    Raises:
        DataError: no such file or column, an unknown suffix, two columns of one name, a name that
            is not among the ``levels``, NaN among the coordinates, or values that cannot be read.
        DependencyError: pandas is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = read_table(write_table(f"{folder}/t.csv", {"a": [1, 2], "y": [3, 4]}))
        >>> table.inputs, table.target, table.y.tolist()
        (('a',), 'y', [3.0, 4.0])
    """
    path = existing_file(path)
    frame, given_target = read_frame(path, target, text=tuple(levels or ()))
    target = target or given_target
    if target is None and needs_target:
        target = str(frame.columns[-1])
    return table_from_frame(
        frame,
        inputs=inputs,
        target=target if needs_target else None,
        name=path.name,
        levels=levels,
    )


def read_series(path: str | Path, *, target: str | None = None, time: str | None = None) -> Table:
    """Read a series in the order of its rows; missing values stay, as NaN.

    Args:
        path: the file, as for :func:`read_table`.
        target: column of the values; None for the last one.
        time: column of the times; None for the numbers of the rows, as input ``ROW`` (with a prime
            if the file has a column of that name).

    Raises:
        DataError, DependencyError: as for :func:`read_table`; or no column besides the times.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "flow.csv"
        ...     _ = file.write_text("day,flow\\n1,0.5\\n2,\\n4,0.7\\n")
        ...     table = read_series(file, time="day")
        >>> table.y.tolist(), table.x[:, 0].tolist()
        ([0.5, nan, 0.7], [1.0, 2.0, 4.0])
    """
    path = existing_file(path)
    frame, given = read_frame(path, target, keep_index=True)
    names = list(map(str, frame.columns))
    values = [c for c in names if c != time]
    if not values and not (target or given):
        raise DataError(
            message(
                "The table has no column of values",
                where=path.name,
                got="columns " + ", ".join(names),
                expected=f"a column besides the times {time!r}" if time else "a column",
            )
        )
    target = target or given or values[-1]
    if time is None:
        time = ROW
        while time in names:
            time += "'"
        frame[time] = np.arange(float(len(frame)))
    return table_from_frame(frame, inputs=[time], target=target, name=path.name, drop_missing=False)


def table_from_frame(
    frame: pd.DataFrame,
    *,
    inputs: Sequence[str] | None = None,
    target: str | None = None,
    name: str = "table",
    drop_missing: bool = True,
    levels: Mapping[str, Sequence[str]] | None = None,
) -> Table:
    """A table from a data frame; ``target=None`` gives NaN targets (points to predict at).

    Rows without a target are left out, or keep NaN if ``drop_missing`` is False. ``levels`` are
    as for :func:`read_table`.

    Raises:
        DataError: no such column, two columns of one name, no coordinates, a name that is not
            among the ``levels``, or values that cannot be read.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"day": ["2020-01-01", "2020-01-03"], "y": [1.0, None]})
        >>> table = table_from_frame(frame, target="y")
        >>> table.kinds, table.num_missing, tuple(table.x.shape)
        (('datetime',), 1, (1, 1))
    """
    frame = frame.rename(columns=str)
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise DataError(
            message(
                f"The table has two columns named {twice[0]!r}",
                where=name,
                got="columns " + ", ".join(frame.columns),
                expected="different names",
                remedy="rename one",
            )
        )
    chosen = list(inputs) if inputs else [c for c in frame.columns if c != target]
    wanted = [*chosen, *([target] if target else [])]
    missing = [c for c in wanted if c not in frame.columns]
    if missing:
        raise DataError(
            message(
                f"The table has no column {missing[0]!r}",
                where=name,
                got=missing,
                expected="columns among " + ", ".join(frame.columns),
                remedy="write them as the file does, capitals included",
            )
        )
    if not chosen:
        raise DataError(
            message(
                "The table has no coordinates",
                where=name,
                got="columns " + ", ".join(frame.columns),
                expected="a column besides the target",
            )
        )
    columns, kinds, found = [], [], {}
    for column in chosen:
        known = (levels or {}).get(column)
        values, kind, names = read_coordinate(frame[column], column, name, known)
        columns.append(values)
        kinds.append(kind)
        if names is not None:
            found[column] = names
    x = np.stack(columns, 1)
    if target is None:
        y = np.full(len(x), np.nan)
        keep = np.ones(len(x), dtype=bool)
    else:
        y = read_target(frame[target], target, name)
        keep = ~np.isnan(y)
    if not keep.any():
        raise DataError(message("No target is observed", where=name, got=f"{len(y)} missing"))
    num_missing = int((~keep).sum())
    keep |= not drop_missing
    return Table(
        torch.as_tensor(x[keep]),
        torch.as_tensor(y[keep]),
        tuple(chosen),
        target or "",
        tuple(kinds),
        found,
        num_missing,
        name,
    )


def table_from_arrays(
    values: np.ndarray, coordinates: Mapping[str, Any], *, target: str, name: str
) -> Table:
    """Long table of a gridded array; ``coordinates`` maps each axis' name to its values.

    Example:
        >>> axes = {"a": [0.0, 1.0], "b": [0.0, 0.5, 1.0]}
        >>> tuple(table_from_arrays(np.ones((2, 3)), axes, target="y", name="ones").x.shape)
        (6, 2)
    """
    import pandas as pd

    mesh = np.meshgrid(*[np.arange(n) for n in values.shape], indexing="ij")
    frame = pd.DataFrame(
        {c: np.asarray(v)[i.ravel()] for (c, v), i in zip(coordinates.items(), mesh, strict=True)}
    )
    frame[target] = np.asarray(values, dtype=np.float64).ravel()
    return table_from_frame(frame, target=target, name=name)


def write_table(path: str | Path, columns: Mapping[str, Any]) -> Path:
    """Write columns of equal length as CSV or Parquet, by suffix.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_table(f"{folder}/t.csv", {"a": [1, 2], "y": [3, 4]})
        ...     print(path.read_text().splitlines())
        ['a,y', '1,3', '2,4']
    """
    pd = import_pandas()
    frame = pd.DataFrame({n: np.asarray(v) for n, v in columns.items()})
    path = Path(path)
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False)
    return path
