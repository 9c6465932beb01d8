"""The figure of videos: strips of frames, in the form of all figures of ``probkit.plot``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from probkit.drawing import new_figure, save_figure

__all__ = ["plot_frames"]


def plot_frames(
    rows: Mapping[str, Float[Tensor, "F H W"]], path: str | Path, *, first: int = 0
) -> Path:
    """Strips of grey frames, one below the other, black at 0 and white at 1.

    Args:
        rows: by name, frames in time; shorter rows end at the same frame.
        path: the file; its suffix decides the format.
        first: number of the first frame of the longest row.

    Raises:
        DependencyError: matplotlib is not installed.
    """
    count = max(len(frames) for frames in rows.values())
    figure = new_figure(0.62 * count + 1.4, 0.66 * len(rows) + 0.3)
    axes = figure.subplots(len(rows), count, squeeze=False)
    for row, (name, frames) in zip(axes, rows.items(), strict=True):
        skipped = count - len(frames)
        for number, ax in enumerate(row):
            ax.set(xticks=[], yticks=[], frame_on=number >= skipped)
            if number >= skipped:
                shown = frames[number - skipped].detach().cpu().numpy()
                ax.imshow(shown, cmap="gray", vmin=0, vmax=1)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    for number, ax in enumerate(axes[0]):
        ax.set_title(str(first + number), fontsize=7)
    return save_figure(figure, path)
