"""Data frames from CSV, Parquet and netCDF files, whatever these turn out to hold.

A netCDF variable of several dimensions becomes one row a cell. Parsers promise no type for the
errors of damaged files, so theirs become a :class:`~probkit.errors.DataError` here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from probkit.errors import DataError, DependencyError, ProbkitError, message

__all__ = ["existing_file", "import_pandas", "read_frame"]

_EXPANSION = 8
"""bytes in memory for a byte in a classic netCDF file: it is not compressed, but may be scaled"""
_SMALL = 2**20


def existing_file(path: str | Path) -> Path:
    """The path, if there is something at it.

    Raises:
        DataError: there is not.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(
            message(
                "There is no such file",
                where="path",
                got=str(path),
                expected="a file",
            )
        )
    return path


def import_pandas() -> Any:
    """The module pandas.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise DependencyError(
            message("Reading tables needs pandas", remedy='pip install "probkit[data]"')
        ) from error
    return pd


def read_frame(
    path: Path, target: str | None, keep_index: bool = False, text: Sequence[str] = ()
) -> tuple[Any, str | None]:
    """A data frame, and the name of the target where the file decides it.

    Args:
        path: ends in .csv, .txt, .parquet, .pq, .nc, .nc4 or .cdf.
        target: variable of a netCDF file; None for its only one.
        keep_index: whether the coordinate of a one-dimensional variable is a column.
        text: columns of a CSV file that are names, even where all of them look like numbers.

    Raises:
        DataError: an unknown format, a damaged file, or no such variable.
    """
    pd = import_pandas()
    suffix = path.suffix.lower()
    try:
        if suffix in (".csv", ".txt"):
            return pd.read_csv(path, dtype=dict.fromkeys(text, str)), None
        if suffix in (".parquet", ".pq"):
            return pd.read_parquet(path), None
        if suffix in (".nc", ".nc4", ".cdf"):
            return _read_netcdf(path, target, keep_index)
    except (ProbkitError, ImportError):
        raise
    except Exception as error:  # of the parsers, which promise no type for damaged files
        raise DataError(
            message(
                f"The file cannot be read: {error}",
                where=str(path),
                expected=f"a {suffix} file that is whole",
            )
        ) from error
    raise DataError(
        message(
            "Unknown file format",
            where=str(path),
            got=suffix or "no suffix",
            expected=".csv, .parquet or .nc",
        )
    )


def _read_netcdf(path: Path, target: str | None, keep_index: bool) -> tuple[Any, str]:
    import xarray as xr

    with xr.open_dataset(path) as data:
        gridded = [
            str(n)
            for n, v in data.data_vars.items()
            if v.ndim == max((u.ndim for u in data.data_vars.values()), default=0)
        ]
        if target is None and len(gridded) != 1:
            raise DataError(
                message(
                    "The file holds several variables",
                    where=str(path),
                    got=sorted(map(str, data.data_vars)),
                    remedy="name one with target",
                )
            )
        name = target or gridded[0]
        if name not in data:
            raise DataError(
                message(
                    f"The file has no variable {name!r}",
                    where=str(path),
                    expected="one of " + ", ".join(sorted(map(str, data.data_vars))),
                )
            )
        # other variables of other dimensions would make a table of all combinations
        data = data[[n for n in data.data_vars if set(data[n].dims) <= set(data[name].dims)]]
        _check_size(path, sum(variable.nbytes for variable in data.variables.values()))
        array = data[name].load()
        if array.ndim > 1:
            frame = array.to_dataframe(name=name).reset_index()
            return frame[[*map(str, array.dims), name]], name
        # of points the index is a number without meaning; of a series it is the time
        keep_index = keep_index and array.ndim == 1 and array.dims[0] in data.coords
        return data.load().to_dataframe().reset_index(drop=not keep_index), name


def _check_size(path: Path, num_bytes: int) -> None:
    """Sizes in a damaged header of the classic format need not be those of the file."""
    with path.open("rb") as file:
        classic = file.read(3) == b"CDF"
    if classic and num_bytes > _EXPANSION * path.stat().st_size + _SMALL:
        raise DataError(
            message(
                "The file cannot be read: its header promises more than it holds",
                where=str(path),
                got=f"{num_bytes} bytes in a file of {path.stat().st_size}",
                expected="a .nc file that is whole",
            )
        )
