"""Figures of a recovery: its largest coefficients with their intervals, and the log evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probkit.drawing import COLOURS, new_figure, save_figure
from probkit.plot import plot_history
from probkit.sparse.estimator import Recovery

__all__ = ["draw", "plot_coefficients"]

_SHOWN = 40


def plot_coefficients(
    found: Recovery, path: str | Path, *, truth: Tensor | None = None, level: float = 0.9
) -> Path:
    """The largest coefficients with their intervals, in the order of the grid.

    Args:
        found: the recovery; of complex coefficients the real parts are drawn.
        path: the file; its suffix decides the format.
        truth: the true coefficients if they are known, in the shape of ``found.mean``; the places
            shown are then the largest of either.
        level: of the intervals.
    """
    mean, low, high = (_real(values) for values in (found.mean, *found.interval(level)))
    size = np.abs(mean)
    if truth is not None:
        size = np.maximum(size, np.abs(_real(truth)))
    places = np.sort(np.argsort(-size, kind="stable")[:_SHOWN])
    places = places[size[places] > 0]
    figure = new_figure(9.0, 2.8)
    ax = figure.subplots()
    across = np.arange(len(places))
    spread = np.stack([mean - low, high - mean])[:, places]
    label = f"mean, {level:.0%} interval"
    ax.errorbar(
        across, mean[places], spread, fmt="o", ms=4, capsize=3, color=COLOURS[0], label=label
    )
    if truth is not None:
        ax.plot(across, _real(truth)[places], "x", color=COLOURS[1], label="truth")
    ax.axhline(0.0, color="0.8", lw=0.8, zorder=0)
    ax.set_xlabel(f"{len(places)} largest of {size.size} coefficients, in the order of the grid")
    ax.set_ylabel("real part" if found.mean.is_complex() else "value")
    ax.legend(frameon=False, fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0.0, 1.0))
    return save_figure(figure, path)


def draw(found: Recovery, folder: Path, truth: Tensor | None = None) -> dict[str, Path]:
    """The figures of a recovery, by caption."""
    evidence = plot_history(
        found.result.history,
        folder / "evidence.png",
        titles=("Starts", "Sweeps"),
        label="log evidence, scaled data",
    )
    coefficients = plot_coefficients(found, folder / "coefficients.png", truth=truth)
    return {"Coefficients": coefficients, "Log evidence by sweep": evidence}


def _real(values: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    values = values.detach().resolve_conj().cpu().flatten()
    return (values.real if values.is_complex() else values).to(torch.float64).numpy()
