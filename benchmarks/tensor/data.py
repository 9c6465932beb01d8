"""Data of the tensor benchmarks: arrays from ``--data-dir`` and from installed packages."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["Split", "beijing", "us_temp"]


class Split(NamedTuple):
    """Training and test entries; targets in the units in which errors are quoted."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


def beijing(data_dir: Path, pollutant: str, fold: int, *, scaled: bool = False) -> Split:
    """Beijing air quality by (temperature, pressure, day), the paper's folds.

    The target is standardised over all rows (ddof 1). ``scaled`` gives the authors' inputs,
    min-max scaled to [0, 10]; without it the raw ones, as a user would pass them.
    """
    with np.load(data_dir / "beijing_air.npz") as file:
        inputs, values = file["inputs"].astype(float), file[pollutant].astype(float)
        test = file["test_folds"][fold]
    if scaled:
        low, high = inputs.min(0), inputs.max(0)
        inputs = (inputs - low) / (high - low) * 10
    target = (values - values.mean()) / values.std(ddof=1)
    held_out = np.zeros(len(target), dtype=bool)
    held_out[test] = True
    return _split(inputs, target, held_out)


def us_temp(data_dir: Path) -> Split:
    """Yearly mean temperature (Fahrenheit) of US cities by (latitude, longitude, year)."""
    with np.load(data_dir / "us_temp.npz") as file:
        names = {name: file[name] for name in file.files}
    target = names["temperature_fahrenheit"]
    held_out = np.arange(len(target)) >= int(names["num_train"])
    return _split(names["inputs"].astype(float), target.astype(float), held_out)


def _split(inputs: np.ndarray, target: np.ndarray, held_out: np.ndarray) -> Split:
    x, y, mask = torch.from_numpy(inputs), torch.from_numpy(target), torch.from_numpy(held_out)
    return Split(x[~mask], y[~mask], x[mask], y[mask])
