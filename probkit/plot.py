"""Figures from arrays: factor curves, maps, calibration, and the history of a fit.

Each function draws one file with matplotlib's object interface, so that neither pyplot's state nor
the user's backend is touched. Colours are those of Okabe & Ito (2008) and cividis, which readers
with any colour vision can tell apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from probkit.errors import DependencyError, ShapeError, message

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "plot_calibration",
    "plot_curve",
    "plot_curves",
    "plot_factors",
    "plot_forecast",
    "plot_history",
    "plot_maps",
]

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_GREY, _MASKED = "#777777", "#d9d9d9"
_DPI = 150


def plot_factors(
    factors: Sequence[tuple[Any, Any, Any]],
    names: Sequence[str],
    path: str | Path,
) -> Path:
    """Curves of every factor with bands of two standard deviations; a row for each mode.

    Args:
        factors: for each mode the grid (D,), means (D, R) and standard deviations (D, R).
        names: of the modes, on the axes.
        path: the file; its suffix decides the format.
    """
    ranks = [_array(mean).shape[1] for _, mean, _ in factors]
    columns = max(ranks)
    figure = _figure(max(2.9 * columns, 4.2), 2.1 * len(factors) + 0.4)
    axes = figure.subplots(len(factors), columns, squeeze=False)
    for row, (factor, name) in enumerate(zip(factors, names, strict=True)):
        grid, mean, sd = (_array(part) for part in factor)
        low, high = float((mean - 2 * sd).min()), float((mean + 2 * sd).max())
        margin = 0.05 * (high - low) or 1.0
        for r in range(columns):
            ax = axes[row, r]
            if r >= ranks[row]:
                ax.set_axis_off()
                continue
            colour = _COLOURS[r % len(_COLOURS)]
            _band(ax, grid, mean[:, r], sd[:, r], colour)
            ax.set_ylim(low - margin, high + margin)
            ax.set_title(f"{name}, component {r + 1}", fontsize=9)
            ax.set_xlabel(name)
            if r == 0:
                ax.set_ylabel("factor")
            else:
                ax.tick_params(labelleft=False)
    figure.suptitle("Factors: posterior mean ± 2 sd", fontsize=10)
    return _save(figure, path)


def plot_maps(
    panels: Mapping[str, Any],
    x: ArrayLike | Tensor,
    y: ArrayLike | Tensor,
    labels: Sequence[str],
    path: str | Path,
) -> Path:
    """Maps side by side; cells that are NaN are grey.

    Panels whose title starts with "sd" have a colour scale of their own from zero; all others
    share one, so that observed and mean can be compared.

    Args:
        panels: by title, arrays (len(y), len(x)).
        x, y: coordinates of the cells, sorted.
        labels: of the two axes and, if there is a third, of the colour scale.
        path: the file; its suffix decides the format.

    Raises:
        ShapeError: a panel does not fit the coordinates.
    """
    across, up = _array(x), _array(y)
    arrays = {title: _array(panel) for title, panel in panels.items()}
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
    limits = _range(shared)
    extent = np.ptp(up) / np.ptp(across) if np.ptp(across) > 0 else 1.0
    height = float(np.clip(3.6 * extent, 1.8, 4.5)) + 1.4
    figure = _figure(3.9 * len(arrays) + 0.3, height)
    axes = figure.subplots(1, len(arrays), squeeze=False, sharey=True)[0]
    for ax, (title, panel) in zip(axes, arrays.items(), strict=True):
        low, high = limits
        if _is_spread(title):
            low, high = 0.0, _range([panel])[1]
        _map(ax, across, up, panel, "magma" if _is_spread(title) else "cividis", low, high)
        ax.set_title(title, fontsize=10)
        ax.set_xlabel(labels[0])
        bar = figure.colorbar(ax.collections[0], ax=ax, orientation="horizontal", aspect=30)
        if len(labels) > 2:
            bar.set_label(labels[2], fontsize=8)
    axes[0].set_ylabel(labels[1])
    return _save(figure, path)


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
    figure = _figure(6.4, 2.8)
    ax = figure.subplots()
    _band(ax, _array(x), _array(mean), _array(sd), _COLOURS[0])
    ax.set_xlabel(labels[0])
    ax.set_ylabel(labels[1])
    return _save(figure, path)


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
    nominal = _array(levels)
    curves = coverage if isinstance(coverage, Mapping) else {"": coverage}
    figure = _figure(4.4, 4.2)
    ax = figure.subplots()
    line = np.linspace(0, 1, 101)
    if num_points is not None:
        half = 1.96 * np.sqrt(line * (1 - line) / num_points)
        ax.fill_between(line, line - half, line + half, color=_MASKED, lw=0, label="95 % band")
    ax.plot([0, 1], [0, 1], color=_GREY, lw=1, ls="--", label="exact")
    for number, (label, values) in enumerate(curves.items()):
        marker = "osD^vP"[number % 6]
        ax.plot(
            nominal,
            _array(values),
            color=_COLOURS[number % len(_COLOURS)],
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
    return _save(figure, path)


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
    grid = _array(x)
    figure = _figure(5.2, 3.8)
    ax = figure.subplots()
    for number, (name, parts) in enumerate(curves.items()):
        middle, low, high = (_array(part) for part in parts)
        colour = _COLOURS[number % len(_COLOURS)]
        style = "-" if number < len(_COLOURS) else "--"
        marker = "osD^vP"[number % 6]
        ax.plot(grid, middle, color=colour, ls=style, marker=marker, ms=4, lw=1.5, label=name)
        ax.fill_between(grid, low, high, color=colour, alpha=0.18, lw=0)
    if logarithmic and any((_array(parts[0]) > 0).any() for parts in curves.values()):
        ax.set_yscale("log", nonpositive="mask")
    if log_x:
        ax.set_xscale("log")
    ax.set_xlabel(labels[0])
    ax.set_ylabel(labels[1])
    ax.legend(fontsize=8, frameon=False)
    return _save(figure, path)


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
    times, values = (_array(part) for part in series)
    ahead, mean, low, high = (_array(part) for part in forecast)
    figure = _figure(7.6, 3.0)
    ax = figure.subplots()
    ax.plot(times, values, color=_GREY, lw=0.8, marker=".", ms=2.5, label="data")
    ax.fill_between(ahead, low, high, color=_COLOURS[0], alpha=0.25, lw=0, label="90 % interval")
    ax.plot(ahead, mean, color=_COLOURS[0], lw=1.5, label="forecast")
    ax.set(xlabel=labels[0], ylabel=labels[1])
    ax.legend(loc="upper left", fontsize=8, frameon=False)
    return _save(figure, path)


def plot_history(history: Mapping[str, Any], path: str | Path) -> Path:
    """The objective by sweep; each segment (start, rank) is a line of its own.

    Exploratory segments, which have negative numbers, are pale and have a panel of their own: they
    may see part of the data only, and then their objective cannot be compared with the fit's.

    Args:
        history: ``objective`` and, if there are several, ``segment``.
        path: the file; its suffix decides the format.
    """
    objective = _array(history["objective"])
    segments = _array(history.get("segment", np.zeros(len(objective)))).astype(int)
    runs = _runs(segments)
    kinds = [(False, "Fit", [run for run in runs if segments[run[0]] >= 0])]
    search = [run for run in runs if segments[run[0]] < 0]
    if search:
        kinds = [(True, "Exploration: ranks and starts", search), *(k for k in kinds if k[2])]
    figure = _figure(4.6 * len(kinds) + 1.6, 3.6)
    axes = figure.subplots(1, len(kinds), squeeze=False)[0]
    for ax, (pale, title, chosen) in zip(axes, kinds, strict=True):
        for first, last in chosen:
            ax.plot(
                np.arange(first + 1, last + 1),
                objective[first:last],
                color=_COLOURS[4] if pale else _COLOURS[0],
                alpha=0.6 if pale else 1.0,
                lw=1.4 if pale else 1.8,
                marker="." if last - first <= 5 else None,
            )
        _focus(ax, [objective[first:last] for first, last in chosen])
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("sweep")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.ticklabel_format(axis="y", useOffset=False)
        ax.margins(x=0.02)
    axes[0].set_ylabel("objective (higher is better)")
    return _save(figure, path)


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyError(
            message(
                "Figures need matplotlib",
                where="probkit.plot",
                remedy='install it with: pip install "probkit[plot]"',
            )
        ) from error
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def _save(figure: Figure, path: str | Path) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    for ax in figure.axes:
        ax.tick_params(labelsize=8)
        ax.xaxis.label.set_fontsize(9)
        ax.yaxis.label.set_fontsize(9)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_figure(path, dpi=_DPI)
    return path


def _band(ax: Axes, grid: NDArray[Any], mean: NDArray[Any], sd: NDArray[Any], colour: str) -> None:
    if len(grid) == 1:
        ax.errorbar(grid, mean, 2 * sd, color=colour, fmt="o", ms=4, capsize=3)
        return
    ax.fill_between(grid, mean - 2 * sd, mean + 2 * sd, color=colour, alpha=0.25, lw=0)
    ax.plot(grid, mean, color=colour, lw=1.5)
    ax.axhline(0, color=_GREY, lw=0.6, zorder=0)


def _map(
    ax: Axes,
    x: NDArray[Any],
    y: NDArray[Any],
    panel: NDArray[Any],
    colours: str,
    low: float,
    high: float,
) -> None:
    ax.set_facecolor(_MASKED)
    masked = np.ma.masked_invalid(panel)
    ax.pcolormesh(_edges(x), _edges(y), masked, cmap=colours, vmin=low, vmax=high, rasterized=True)


def _edges(centres: NDArray[Any]) -> NDArray[Any]:
    """Borders of cells half-way between their centres."""
    if len(centres) == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    middle = (centres[1:] + centres[:-1]) / 2
    ends = 2 * centres[[0, -1]] - middle[[0, -1]]
    return np.concatenate([ends[:1], middle, ends[1:]])


def _range(panels: Sequence[NDArray[Any]]) -> tuple[float, float]:
    """Smallest and largest finite value; (0, 1) if there is none."""
    finite = [panel[np.isfinite(panel)] for panel in panels]
    values = np.concatenate([part.ravel() for part in finite]) if finite else np.empty(0)
    if not len(values):
        return 0.0, 1.0
    return float(values.min()), float(values.max())


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
    settled = [curve[len(curve) // 4 if len(curve) > 5 else 0 :] for curve in finite if len(curve)]
    if not settled:
        return
    low = min(float(curve.min()) for curve in settled)
    high = max(float(curve.max()) for curve in finite if len(curve))
    margin = max(0.06 * (high - low), 0.5)  # nats: smaller changes do not matter to anyone
    ax.set_ylim(low - margin, high + margin)


def _is_spread(title: str) -> bool:
    return title.lower().startswith("sd")


def _array(values: Any) -> NDArray[Any]:
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=float)
