"""Data sets that installed packages carry, loaded at run time; nothing is downloaded or copied."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probkit.dataset_names import DATASETS, WHOLE
from probkit.errors import DataError, DependencyError, message
from probkit.io import Table, table_from_arrays, table_from_frame
from probkit.random import Seed, as_generator
from probkit.validation import check_whole

__all__ = ["DATASETS", "WHOLE", "holdout", "load_dataset"]

_MANY = 10_000_000


def load_dataset(name: str) -> Table:
    """Load a data set by name.

    Raises:
        DataError: an unknown name.
        DependencyError: the package that carries it is not installed.

    Example:
        >>> load_dataset("elnino").inputs
        ('year', 'month')
    """
    if name not in _LOADERS:
        raise DataError(
            message(
                "There is no data set of this name",
                where="name",
                got=repr(name),
                expected="one of " + ", ".join(DATASETS),
                remedy="give a file (.csv, .parquet, .nc) for data of your own",
            )
        )
    return _LOADERS[name]()


def holdout(
    table: Table,
    *,
    fraction: float = 0.1,
    seed: Seed = 0,
    whole: Mapping[str, int] | None = None,
) -> tuple[Tensor, list[str]]:
    """Choose test rows: whole slices of an input, and a random share of the remaining rows.

    Args:
        fraction: share of rows hidden at random.
        whole: for an input's name, how many of its distinct values are hidden entirely.

    Returns:
        A mask (N,) of test rows and a label for each: "random", "whole INPUT" or "" (training).

    Raises:
        DataError: a fraction outside [0, 1), or an unknown input.
        ConfigurationError: a number of values that is no integer of at least 0.

    Example:
        >>> from probkit.io import Table
        >>> x = torch.arange(10.0)[:, None]
        >>> test, labels = holdout(Table(x, x[:, 0], ("t",), "y", ("numeric",)), fraction=0.2)
        >>> int(test.sum()), labels.count("random")
        (2, 2)
    """
    if not 0 <= fraction < 1:
        raise DataError(
            message(
                "The test share is impossible", where="fraction", got=fraction, expected="in [0, 1)"
            )
        )
    generator = as_generator(seed)
    count = table.y.shape[0]
    labels = [""] * count
    for name, number in (whole or {}).items():
        if name not in table.inputs:
            raise DataError(
                message(
                    "Unknown input",
                    where="whole",
                    got=name,
                    expected="one of " + ", ".join(table.inputs),
                )
            )
        column = table.x[:, table.inputs.index(name)]
        values = torch.unique(column)
        number = check_whole(f"whole[{name!r}]", number, 0, _MANY)
        inner = values[1:-1]  # the ends would be extrapolation
        chosen = inner[torch.randperm(len(inner), generator=generator)[:number]]
        for row in torch.nonzero(torch.isin(column, chosen))[:, 0].tolist():
            labels[row] = f"whole {name}"
    free = torch.tensor([i for i, label in enumerate(labels) if not label])
    picked = free[torch.randperm(len(free), generator=generator)[: round(fraction * len(free))]]
    for row in picked.tolist():
        labels[row] = "random"
    return torch.tensor([bool(label) for label in labels]), labels


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DependencyError(
            message(
                f"The data set comes with the package {name.split('.')[0]!r}",
                remedy='pip install "probkit[data]"',
            )
        ) from error


def _sst() -> Table:
    import xarray as xr

    package = _package("eofs")
    folder = Path(str(package.__file__)).parent / "examples" / "example_data"
    with xr.open_dataset(folder / "sst_ndjfm_anom.nc", engine="scipy") as data:
        array = data["sst"].load()
    coordinates = {
        # each value is a winter's mean: the year of its January
        "time": array["time"].dt.year.to_numpy().astype(np.float64),
        "latitude": array["latitude"].to_numpy().astype(np.float64),
        "longitude": array["longitude"].to_numpy().astype(np.float64),
    }
    return table_from_arrays(array.to_numpy(), coordinates, target="sst_anomaly", name="sst")


def _tensorly(loader: str, names: tuple[str, ...], target: str) -> Callable[[], Table]:
    def load() -> Table:
        bunch = getattr(_package("tensorly.datasets"), f"load_{loader}")()
        values = np.asarray(bunch.tensor, dtype=np.float64)
        ticks = bunch.get("ticks") if loader == "kinetic" else None
        axes = {
            name: np.asarray(ticks[k], dtype=np.float64) if ticks else np.arange(float(size))
            for k, (name, size) in enumerate(zip(names, values.shape, strict=True))
        }
        return table_from_arrays(values, axes, target=target, name=loader)

    return load


def _elnino() -> Table:
    frame = _package("statsmodels.datasets.elnino").load_pandas().data
    values = frame.iloc[:, 1:].to_numpy()
    coordinates = {"year": frame.iloc[:, 0].to_numpy(), "month": np.arange(1.0, 13.0)}
    return table_from_arrays(values, coordinates, target="temperature", name="elnino")


def _sp500_volatility() -> Table:
    prices = _package("arch.data.sp500").load()
    log = {name: np.log(prices[name].to_numpy()) for name in ("Open", "High", "Low", "Close")}
    span, move = log["High"] - log["Low"], log["Close"] - log["Open"]
    # Garman & Klass, Journal of Business 53 (1980): the variance of a day from its four prices
    variance = 0.5 * span**2 - (2 * np.log(2) - 1) * move**2
    return _market(prices.index, 0.5 * np.log(variance), "log_volatility", "sp500_volatility")


def _vix() -> Table:
    frame = _package("arch.data.vix").load()
    return _market(frame.index, np.log(frame["vix"].to_numpy()), "log_vix", "vix")


def _market(dates: Any, values: np.ndarray, target: str, name: str) -> Table:
    """A daily series by its number of the trading day, and by date."""
    import pandas as pd

    day = np.arange(float(len(values)))
    frame = pd.DataFrame({"trading_day": day, "date": np.asarray(dates), target: values})
    return table_from_frame(frame, target=target, name=name, drop_missing=False)


def _nile() -> Table:
    frame = _package("statsmodels.datasets.nile").load_pandas().data
    return table_from_frame(frame.astype(float), target="volume", name="nile")


_LOADERS: dict[str, Callable[[], Table]] = {
    "sst": _sst,
    "kinetic": _tensorly(
        "kinetic", ("measurement", "emission", "excitation", "time"), "fluorescence"
    ),
    "il2": _tensorly("IL2data", ("ligand", "time", "dose", "cell"), "response"),
    "indian_pines": _tensorly("indian_pines", ("row", "column", "band"), "reflectance"),
    "elnino": _elnino,
    "sp500_volatility": _sp500_volatility,
    "vix": _vix,
    "nile": _nile,
}
