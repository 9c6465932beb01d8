"""Figures of a functional Tucker fit: history, strongest factors, calibration, and maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probkit.io import Table
from probkit.plot import plot_calibration, plot_factors, plot_history, plot_maps
from probkit.tensor.estimator import FunctionalTucker

__all__ = ["draw", "draw_calibration", "draw_maps", "known_places", "strongest"]

_MOST_COMPONENTS = 4
_NOMINAL = tuple(round(0.05 * k, 2) for k in range(1, 20))
_LARGEST_MAP = 40_000
_FAR = 3.0
"""distance from data, in median distances between neighbours, of what is not shown"""


def draw(model: FunctionalTucker, folder: Path, dates: Sequence[str] = ()) -> dict[str, Path]:
    """The figures of a fit that need no data, by caption.

    Args:
        dates: inputs that are days since 1970-01-01.
    """
    history = model.result_.history
    last = int((np.asarray(history["segment"]) >= 0).sum()) if "segment" in history else 0
    titles = (
        "Exploration: starts, ranks, and the best one",
        f"Fit of all entries from there: {last} sweeps",
    )
    order = strongest(model, _MOST_COMPONENTS)
    factors = plot_factors(
        model.factors(), model.input_names_, folder / "factors.png", order=order, dates=dates
    )
    return {
        "Objective by sweep": plot_history(history, folder / "elbo.png", titles=titles),
        "Factors": factors,
    }


def strongest(model: FunctionalTucker, count: int) -> list[list[int]]:
    """For each mode the components with the largest expected squares, at most ``count``.

    A component's square is that of all core weights it takes part in, times the mean squares of
    the factors that they multiply.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> x = torch.rand(60, 2, generator=g, dtype=torch.float64)
        >>> model = FunctionalTucker(2, num_starts=1, calibrate=False).fit(x, x[:, 0] * x[:, 1])
        >>> [len(numbers) for numbers in strongest(model, 1)]
        [1, 1]
    """
    posterior = model.result_.posterior
    mean, sd = posterior.mean(), posterior.sd()
    second = {name: mean[name].square() + sd[name].square() for name in mean}
    powers = [second[f"factor_{k}"].mean(0) for k in range(len(model.input_names_))]
    weights = second["core"].clone()
    if model.structure == "cp":
        energies = [weights * torch.stack(powers).prod(0)] * len(powers)
    else:
        for k, power in enumerate(powers):
            weights *= power.reshape([-1 if j == k else 1 for j in range(len(powers))])
        energies = [weights.movedim(k, 0).flatten(1).sum(1) for k in range(len(powers))]
    return [torch.argsort(e, descending=True)[:count].tolist() for e in energies]


def draw_calibration(
    model: FunctionalTucker, held_out: Mapping[str, tuple[Tensor, Tensor]], path: Path
) -> Path:
    """Shares inside central intervals, a curve for each hold-out (x, y) by label."""
    ends = [(1 - level) / 2 for level in _NOMINAL]
    levels = [*ends, *(1 - end for end in ends)]
    curves = {}
    for label, (x, y) in held_out.items():
        low, high = model.predict(x, quantiles=levels)["quantiles"].chunk(2)
        inside = ((low <= y) & (y <= high)).double().mean(1)
        curves[f"{label}, {len(y)} entries"] = inside
    return plot_calibration(_NOMINAL, curves, path)


def draw_maps(
    model: FunctionalTucker, table: Table, train: Tensor, path: Path
) -> tuple[str, Path] | None:
    """Maps over the last two of three coordinates at the middle value of the first.

    Mean and sd are shown where the fit saw data at any value of the first coordinate: elsewhere
    its intervals are far too narrow (:func:`known_places`).

    Args:
        train: (N,) which rows the fit saw.

    Returns:
        Caption and file; None for other tables, and for maps of too many cells.
    """
    if len(table.inputs) != 3 or "category" in table.kinds:
        return None
    axes = [torch.unique(column) for column in table.x.T]
    shape = (len(axes[1]), len(axes[2]))
    if shape[0] * shape[1] > _LARGEST_MAP or min(shape) < 2:
        return None
    middle = axes[0][len(axes[0]) // 2]
    mesh = torch.cartesian_prod(axes[1], axes[2])
    mean, sd = model.predict(torch.cat([middle.expand(len(mesh), 1), mesh], 1), return_sd=True)
    known = known_places(axes[1], axes[2], table.x[train, 1:])
    observed = np.full(shape, np.nan)
    rows = table.x[:, 0] == middle
    observed[_cells(axes[1], axes[2], table.x[rows, 1:])] = table.y[rows].numpy()
    when = _text(float(middle), table.kinds[0])
    first = f"observed, {table.inputs[0]} = {when}"
    panels = {
        first: observed,
        "mean": np.where(known, mean.reshape(shape).numpy(), np.nan),
        "sd": np.where(known, sd.reshape(shape).numpy(), np.nan),
    }
    labels = (table.inputs[2], table.inputs[1], table.target)
    hidden = "" if known.all() else "Grey in mean and sd: places where nothing was ever observed"
    plot_maps(panels, axes[2], axes[1], labels, path, scale=first, note=hidden)
    caption = f"Observed, mean and sd at one {table.inputs[0]}"
    if hidden:
        caption += "; places where nothing was ever observed are grey"
    return caption, path


def known_places(rows: Tensor, columns: Tensor, places: Tensor) -> NDArray[np.bool_]:
    """Which cells of a map have data: (len(rows), len(columns)).

    On a grid with gaps (at least half of the cells have data) these are the cells that have some.
    Scattered places hardly ever fall on the crossings of each other's coordinates; there a cell is
    known if data lie within three times the median distance between neighbouring places, on
    coordinates scaled to [0, 1].

    Args:
        rows, columns: coordinates of the cells, sorted.
        places: (N, 2) coordinates of the data.

    Example:
        >>> axis = torch.arange(3.0)
        >>> places = torch.cartesian_prod(axis, axis)
        >>> known_places(axis, axis, places[:-1]).tolist()[2]
        [True, True, False]
    """
    from scipy.spatial import KDTree

    known = np.zeros((len(rows), len(columns)), dtype=bool)
    known[_cells(rows, columns, places)] = True
    if 2 * known.sum() >= known.size:
        return known
    low = torch.stack([rows[0], columns[0]])
    span = torch.stack([rows[-1], columns[-1]]) - low
    scaled = (torch.unique(places, dim=0) - low) / span
    tree = KDTree(scaled.numpy())
    apart = np.median(tree.query(scaled.numpy(), k=2)[0][:, 1]) if len(scaled) > 1 else 0.0
    mesh = (torch.cartesian_prod(rows, columns) - low) / span
    distance = tree.query(mesh.numpy())[0]
    near: NDArray[np.bool_] = distance.reshape(known.shape) <= _FAR * apart
    return near | known


def _cells(rows: Tensor, columns: Tensor, places: Tensor) -> tuple[NDArray[Any], NDArray[Any]]:
    """Numbers of the cells of a map that places are in."""
    i = torch.searchsorted(rows, places[:, 0].contiguous())
    j = torch.searchsorted(columns, places[:, 1].contiguous())
    return i.numpy(), j.numpy()


def _text(value: float, kind: str) -> str:
    if kind == "datetime":
        seconds = np.datetime64(0, "s") + np.timedelta64(round(86_400 * value), "s")
        return str(seconds).removesuffix("T00:00:00")
    return f"{value:g}"
