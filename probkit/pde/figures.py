"""The figure of a solution: a curve with its band, or maps of mean and standard deviation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.pde.harmonics import Harmonics
from probkit.plot import plot_curve, plot_maps

__all__ = ["plot_solution"]

_CURVE, _MAP = 1200, 120

Moment = Callable[[Tensor], Tensor]


def plot_solution(
    sides: Sequence[Harmonics], mean: Moment, sd: Moment | None, path: str | Path
) -> Path:
    """Draw a function of one or two coordinates over its box.

    Args:
        sides: of the box.
        mean, sd: moments at points ``(n, d)``; None where there are no error bars.
        path: the file; its suffix decides the format.

    Raises:
        ConfigurationError: three dimensions or more.
    """
    if len(sides) > 2:
        raise ConfigurationError(
            message(
                "A figure shows one or two dimensions",
                where="plot",
                got=len(sides),
                remedy="draw slices of on_grid",
            )
        )
    num = _CURVE if len(sides) == 1 else _MAP
    axes = [torch.linspace(s.origin, s.origin + s.length, num).double() for s in sides]
    points = torch.cartesian_prod(*axes).reshape(-1, len(sides))
    found = mean(points)
    if len(sides) == 1:
        spread = torch.zeros_like(found) if sd is None else sd(points)
        return plot_curve(axes[0], found, spread, ("x", "u"), path)
    panels = {"mean of u": found.reshape(num, num).mT}
    if sd is not None:
        panels["sd of u"] = sd(points).reshape(num, num).mT
    return plot_maps(panels, axes[0], axes[1], ("x", "y"), path)
