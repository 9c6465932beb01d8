"""Figures from arrays: factor curves, maps, calibration, and the history of a fit.

Each function draws one file with matplotlib's object interface, so that neither pyplot's state nor
the user's backend is touched. Colours are those of Okabe & Ito (2008), cividis, and red to blue for
maps of either sign: readers with any colour vision can tell them apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from probkit.drawing import (
    COLOURS,
    GREY,
    MASKED,
    band,
    draw_map,
    ends_beyond,
    map_colours,
    new_figure,
    save_figure,
    to_array,
    value_range,
)
from probkit.errors import ShapeError, message

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "plot_calibration",
    "plot_curve",
    "plot_curves",
    "plot_factors",
    "plot_forecast",
    "plot_history",
    "plot_maps",
]

_FEW = 20
"""sweeps up to which a curve is drawn from its first point, with its points"""
_FAR = 4.0
"""heights of the settled part, below which beginnings are cut off nevertheless"""
_TAIL = 0.01
"""share of the cells at either end that do not stretch a scale"""


def plot_factors(
    factors: Sequence[tuple[Any, Any, Any]],
    names: Sequence[str],
    path: str | Path,
    *,
    order: Sequence[Sequence[int]] | None = None,
    dates: Sequence[str] = (),
) -> Path:
    """Curves of factors with bands of two standard deviations; a row for each mode.

    Args:
        factors: for each mode the grid (D,), means (D, R) and standard deviations (D, R).
        names: of the modes, on the axes.
        path: the file; its suffix decides the format.
        order: for each mode, which components to draw (from 0), from the left; None for all.
        dates: names of the modes whose grid is in days since 1970-01-01.
    """
    chosen = order or [range(to_array(mean).shape[1]) for _, mean, _ in factors]
    columns = max(map(len, chosen))
    figure = new_figure(max(2.9 * columns, 4.2), 2.1 * len(factors) + 0.4)
    axes = figure.subplots(len(factors), columns, squeeze=False)
    for row, (factor, name) in enumerate(zip(factors, names, strict=True)):
        grid, mean, sd = (to_array(part) for part in factor)
        low, high = float((mean - 2 * sd).min()), float((mean + 2 * sd).max())
        margin = 0.05 * (high - low) or 1.0
        for ax in axes[row, len(chosen[row]) :]:
            ax.set_axis_off()
        for column, r in enumerate(chosen[row]):
            ax = axes[row, column]
            colour = COLOURS[r % len(COLOURS)]
            band(ax, grid, mean[:, r], sd[:, r], colour)
            ax.set_ylim(low - margin, high + margin)
            ax.set_title(f"{name}, component {r + 1}", fontsize=9)
            ax.set_xlabel(name)
            if name in dates:
                _as_dates(ax)
            if column == 0:
                ax.set_ylabel("factor")
            else:
                ax.tick_params(labelleft=False)
    total = max(to_array(mean).shape[1] for _, mean, _ in factors)
    some = f"; the {columns} strongest of {total} components" if columns < total else ""
    figure.suptitle(f"Factors: posterior mean ± 2 sd{some}", fontsize=10)
    return save_figure(figure, path)


def plot_maps(
    panels: Mapping[str, Any],
    x: ArrayLike | Tensor,
    y: ArrayLike | Tensor,
    labels: Sequence[str],
    path: str | Path,
    *,
    scale: str | None = None,
    note: str = "",
) -> Path:
    """Maps side by side; cells that are NaN are grey.

    Panels whose title starts with "sd" have a colour scale of their own from zero; all others
    share one, so that observed and mean can be compared. Where it spans both signs, its colours
    are red and blue, white at zero.

    Args:
        panels: by title, arrays (len(y), len(x)).
        x, y: coordinates of the cells, sorted.
        labels: of the two axes and, if there is a third, of the colour scale.
        path: the file; its suffix decides the format.
        scale: title of the panel whose central 98 % set the common scale; cells beyond have the
            colours of its ends. None for the range of all panels that share it.
        note: a line above the panels.

    Raises:
        ShapeError: a panel does not fit the coordinates.
    """
    across, up = to_array(x), to_array(y)
    arrays = {title: to_array(panel) for title, panel in panels.items()}
    for title, panel in arrays.items():
        if panel.shape != (len(up), len(across)):
            raise ShapeError(
                message(
                    "A map must have a row for each y and a column for each x",
                    where=f"panels[{title!r}]",
                    got=panel.shape,
                    expected=(len(up), len(across)),
                )
            )
    shared = [panel for title, panel in arrays.items() if not _is_spread(title)]
    if scale is None:
        limits = value_range(shared)
    else:
        limits = value_range([arrays[scale]], tail=_TAIL)
    colours, limits = map_colours(*limits)
    extend = ends_beyond(shared, limits)
    extent = np.ptp(up) / np.ptp(across) if np.ptp(across) > 0 else 1.0
    height = float(np.clip(3.6 * extent, 1.8, 4.5)) + 1.4
    figure = new_figure(3.9 * len(arrays) + 0.3, height)
    axes = figure.subplots(1, len(arrays), squeeze=False, sharey=True)[0]
    for ax, (title, panel) in zip(axes, arrays.items(), strict=True):
        own, ends = ("magma", (0.0, value_range([panel])[1])), "neither"
        if not _is_spread(title):
            own, ends = (colours, limits), extend
        draw_map(ax, across, up, panel, *own)
        ax.set_title(title, fontsize=10)
        ax.set_xlabel(labels[0])
        bar = figure.colorbar(
            ax.collections[0], ax=ax, orientation="horizontal", aspect=30, extend=ends
        )
        if len(labels) > 2:
            bar.set_label(labels[2], fontsize=8)
    axes[0].set_ylabel(labels[1])
    if note:
        figure.suptitle(note, fontsize=9)
    return save_figure(figure, path)


def plot_curve(
    x: ArrayLike | Tensor,
    mean: ArrayLike | Tensor,
    sd: ArrayLike | Tensor,
    labels: tuple[str, str],
    path: str | Path,
) -> Path:
    """One function of one coordinate with a band of two standard deviations.

    Args:
        x, mean, sd: (D,) arrays.
        labels: of the axes.
        path: the file; its suffix decides the format.
    """
    figure = new_figure(6.4, 2.8)
    ax = figure.subplots()
    band(ax, to_array(x), to_array(mean), to_array(sd), COLOURS[0])
    ax.set_xlabel(labels[0])
    ax.set_ylabel(labels[1])
    return save_figure(figure, path)


def plot_calibration(
    levels: ArrayLike | Tensor,
    coverage: ArrayLike | Tensor | Mapping[str, Any],
    path: str | Path,
    *,
    num_points: int | None = None,
) -> Path:
    """Share of held-out targets inside central intervals against the intervals' level.

    Args:
        levels: (L,) nominal levels in (0, 1).
        coverage: (L,) shares, or such arrays by the label of the hold-out.
        path: the file; its suffix decides the format.
        num_points: held-out targets; if given, the band where 95 % of such shares would lie if the
            intervals were exact is drawn.
    """
    nominal = to_array(levels)
    curves = coverage if isinstance(coverage, Mapping) else {"": coverage}
    figure = new_figure(4.4, 4.2)
    ax = figure.subplots()
    line = np.linspace(0, 1, 101)
    if num_points is not None:
        half = 1.96 * np.sqrt(line * (1 - line) / num_points)
        ax.fill_between(line, line - half, line + half, color=MASKED, lw=0, label="95 % band")
    ax.plot([0, 1], [0, 1], color=GREY, lw=1, ls="--", label="exact")
    for number, (label, values) in enumerate(curves.items()):
        marker = "osD^vP"[number % 6]
        ax.plot(
            nominal,
            to_array(values),
            color=COLOURS[number % len(COLOURS)],
            marker=marker,
            ms=4,
            lw=1.5,
            label=label or "intervals",
        )
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.set_xlabel("nominal level of the central interval")
    ax.set_ylabel("share of held-out targets inside")
    ax.set_title("Calibration: below the line is too narrow", fontsize=10)
    ax.legend(loc="upper left", fontsize=8, frameon=False)
    return save_figure(figure, path)


def plot_curves(
    x: ArrayLike | Tensor,
    curves: Mapping[str, tuple[Any, Any, Any]],
    labels: Sequence[str],
    path: str | Path,
    *,
    logarithmic: bool = False,
    log_x: bool = False,
) -> Path:
    """Curves with bands, one for each method, over a common axis.

    Args:
        x: (P,) positions.
        curves: by name, the middle and the two ends of the band, (P,) each.
        labels: of the two axes.
        path: the file; its suffix decides the format.
        logarithmic: whether the values' axis is; bands that reach zero or below are cut.
        log_x: whether the axis of positions is logarithmic.
    """
    grid = to_array(x)
    figure = new_figure(5.2, 3.8)
    ax = figure.subplots()
    for number, (name, parts) in enumerate(curves.items()):
        middle, low, high = (to_array(part) for part in parts)
        colour = COLOURS[number % len(COLOURS)]
        style = "-" if number < len(COLOURS) else "--"
        marker = "osD^vP"[number % 6]
        ax.plot(grid, middle, color=colour, ls=style, marker=marker, ms=4, lw=1.5, label=name)
        ax.fill_between(grid, low, high, color=colour, alpha=0.18, lw=0)
    if logarithmic and any((to_array(parts[0]) > 0).any() for parts in curves.values()):
        ax.set_yscale("log", nonpositive="mask")
    if log_x:
        ax.set_xscale("log")
    ax.set_xlabel(labels[0])
    ax.set_ylabel(labels[1])
    ax.legend(fontsize=8, frameon=False)
    return save_figure(figure, path)


def plot_forecast(
    series: tuple[Any, Any], forecast: tuple[Any, Any, Any, Any], labels: tuple[str, str], path: Any
) -> Path:
    """A series and what is expected after it.

    Args:
        series: times (N,) and values (N,), NaN where missing.
        forecast: times (T,), mean, and the two ends of the band.
        labels: of the axes.
        path: the file; its suffix decides the format.
    """
    times, values = (to_array(part) for part in series)
    ahead, mean, low, high = (to_array(part) for part in forecast)
    figure = new_figure(7.6, 3.0)
    ax = figure.subplots()
    ax.plot(times, values, color=GREY, lw=0.8, marker=".", ms=2.5, label="data")
    ax.fill_between(ahead, low, high, color=COLOURS[0], alpha=0.25, lw=0, label="90 % interval")
    ax.plot(ahead, mean, color=COLOURS[0], lw=1.5, label="forecast")
    ax.set(xlabel=labels[0], ylabel=labels[1])
    figure.legend(loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    return save_figure(figure, path)


def plot_history(
    history: Mapping[str, Any],
    path: str | Path,
    *,
    titles: tuple[str, str] = ("Exploration: ranks and starts", "Fit"),
    label: str = "objective (higher is better)",
) -> Path:
    """The objective by sweep; each segment (start, rank) is a line of its own.

    Exploratory segments, which have negative numbers, are pale and have a panel of their own: they
    may see part of the data only, and then their objective cannot be compared with the fit's.

    Args:
        history: ``objective`` and, if there are several, ``segment``.
        path: the file; its suffix decides the format.
        titles: of the exploratory segments' panel and of the other.
        label: of the axis of the objective.
    """
    objective = to_array(history["objective"])
    segments = to_array(history.get("segment", np.zeros(len(objective)))).astype(int)
    runs = _runs(segments)
    kinds = [(False, titles[1], [run for run in runs if segments[run[0]] >= 0])]
    search = [run for run in runs if segments[run[0]] < 0]
    if search:
        kinds = [(True, titles[0], search), *(k for k in kinds if k[2])]
    figure = new_figure(4.6 * len(kinds) + 1.6, 3.6)
    axes = figure.subplots(1, len(kinds), squeeze=False)[0]
    for ax, (pale, title, chosen) in zip(axes, kinds, strict=True):
        for first, last in chosen:
            ax.plot(
                np.arange(first + 1, last + 1),
                objective[first:last],
                color=COLOURS[4] if pale else COLOURS[0],
                alpha=0.6 if pale else 1.0,
                lw=1.4 if pale else 1.8,
                marker="." if last - first <= (_FEW if not pale else 5) else None,
            )
        _focus(ax, [objective[first:last] for first, last in chosen])
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("sweep")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.ticklabel_format(axis="y", useOffset=False)
        ax.margins(x=0.02)
    axes[0].set_ylabel(label)
    return save_figure(figure, path)


def _as_dates(ax: Axes) -> None:
    """Days since 1970-01-01 as dates, which are matplotlib's own numbers for them."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(maxticks=6)
    ax.xaxis_date()
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _runs(segments: NDArray[Any]) -> list[tuple[int, int]]:
    """Begin and end of each stretch of equal segment numbers."""
    if not len(segments):
        return []
    cuts = np.flatnonzero(np.diff(segments)) + 1
    borders = [0, *cuts.tolist(), len(segments)]
    return list(itertools.pairwise(borders))


def _focus(ax: Axes, curves: Sequence[NDArray[Any]]) -> None:
    """Cut off the steep beginnings, which would hide how the fit settles."""
    finite = [curve[np.isfinite(curve)] for curve in curves]
    settled = [c[len(c) // 4 if len(c) > 5 else 0 :] for c in finite if len(c)]
    if not settled:
        return
    high = max(float(curve.max()) for curve in finite if len(curve))
    low = min(float(curve.min()) for curve in settled)
    short = [c for c in finite if len(c) and len(c) <= _FEW]
    # a short curve is shown from its first point, unless that lies far below all others
    begin = min((float(c.min()) for c in short), default=low)
    low = min(low, max(begin, low - _FAR * (high - low)))
    margin = max(0.06 * (high - low), 0.5)  # nats: smaller changes do not matter to anyone
    ax.set_ylim(low - margin, high + margin)


def _is_spread(title: str) -> bool:
    return title.lower().startswith("sd")
