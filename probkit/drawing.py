"""What all figures share: their colours, their form, how they are saved, and maps of cells.

Figures are made with matplotlib's object interface, so that neither pyplot's state nor the user's
backend is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from probkit.errors import DependencyError, message

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLOURS",
    "GREY",
    "MASKED",
    "band",
    "draw_map",
    "ends_beyond",
    "map_colours",
    "new_figure",
    "save_figure",
    "to_array",
    "value_range",
]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
GREY, MASKED = "#777777", "#c8c8c8"
_DPI = 150
_BOTH_SIGNS = 0.1
"""share of the longer side from which on the shorter one counts"""


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches.

    Raises:
        DependencyError: matplotlib is not installed.
    """
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


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write the figure; its folder is made, and the suffix decides the format."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    for ax in figure.axes:
        ax.tick_params(labelsize=8)
        ax.xaxis.label.set_fontsize(9)
        ax.yaxis.label.set_fontsize(9)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_figure(path, dpi=_DPI)
    return path


def band(ax: Axes, grid: NDArray[Any], mean: NDArray[Any], sd: NDArray[Any], colour: str) -> None:
    """A curve with a band of two standard deviations; a point with bars if there is one only."""
    if len(grid) == 1:
        ax.errorbar(grid, mean, 2 * sd, color=colour, fmt="o", ms=4, capsize=3)
        return
    ax.fill_between(grid, mean - 2 * sd, mean + 2 * sd, color=colour, alpha=0.25, lw=0)
    ax.plot(grid, mean, color=colour, lw=1.5)
    ax.axhline(0, color=GREY, lw=0.6, zorder=0)


def to_array(values: Any) -> NDArray[Any]:
    """Numbers of any kind as an array of floats."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=float)


def draw_map(
    ax: Axes,
    x: NDArray[Any],
    y: NDArray[Any],
    panel: NDArray[Any],
    colours: str,
    limits: tuple[float, float],
) -> None:
    """Cells by their centres; those that are NaN are grey."""
    ax.set_facecolor(MASKED)
    masked = np.ma.masked_invalid(panel)
    low, high = limits
    ax.pcolormesh(_edges(x), _edges(y), masked, cmap=colours, vmin=low, vmax=high, rasterized=True)


def _edges(centres: NDArray[Any]) -> NDArray[Any]:
    """Borders of cells half-way between their centres."""
    if len(centres) == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    middle = (centres[1:] + centres[:-1]) / 2
    ends = 2 * centres[[0, -1]] - middle[[0, -1]]
    return np.concatenate([ends[:1], middle, ends[1:]])


def value_range(panels: Sequence[NDArray[Any]], tail: float = 0.0) -> tuple[float, float]:
    """Finite values' quantiles ``tail`` and ``1 - tail``; (0, 1) if there is none."""
    finite = [panel[np.isfinite(panel)] for panel in panels]
    values = np.concatenate([part.ravel() for part in finite]) if finite else np.empty(0)
    if not len(values):
        return 0.0, 1.0
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def map_colours(low: float, high: float) -> tuple[str, tuple[float, float]]:
    """Colours and limits: diverging and even about zero if both signs matter."""
    if min(-low, high) > _BOTH_SIGNS * max(-low, high):
        limit = max(-low, high)
        return "RdBu_r", (-limit, limit)
    return "cividis", (low, high)


def ends_beyond(panels: Sequence[NDArray[Any]], limits: tuple[float, float]) -> str:
    """At which ends of a colour scale there are values outside, in matplotlib's words."""
    low, high = value_range(panels)
    below, above = low < limits[0], high > limits[1]
    return {(True, True): "both", (True, False): "min", (False, True): "max"}.get(
        (below, above), "neither"
    )
