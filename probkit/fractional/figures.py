"""Figures of a fitted ``HurstModel``: forecast, posterior of the Hurst index, and variogram."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probkit.infer import DrawsPosterior
from probkit.plot import plot_curve, plot_curves, plot_forecast
from probkit.validation import as_times, check_choice

if TYPE_CHECKING:
    from probkit.fractional.hurst import HurstModel

__all__ = ["plot_hurst"]

_SHOWN, _AHEAD = 4, 40
"""data before a forecast, in lengths of the forecast; points of a default forecast"""
_POINTS = 400
_LEVELS = (0.05, 0.5, 0.95)


def plot_hurst(
    model: HurstModel,
    path: str | Path,
    what: str,
    times: Any,
    series: int,
    labels: tuple[str, str] = ("time", "y"),
) -> Path:
    """Draw one figure; see :meth:`HurstModel.plot`.

    Args:
        labels: of the time and of the values.
    """
    figures = {"forecast": _forecast, "posterior": _posterior, "variogram": _variogram}
    return figures[check_choice("figure", "what", what, figures)](
        model, Path(path), times, series, labels
    )


def _forecast(
    model: HurstModel, path: Path, times: Any, series: int, labels: tuple[str, str]
) -> Path:
    own = model._data()
    last, step = own.last_time, own.step
    when = last + step * torch.tensor([0.0, *own.elapsed], dtype=torch.float64)
    when = when - step * own.elapsed[-1]
    values = torch.where(own.observed, own.values[series], torch.nan)
    if own.increments:
        when = when[1:]
    else:
        values = torch.cat([own.first[series, None], values])
    ahead = _ahead(own.span, last, step) if times is None else as_times(times, "times")
    found = model.predict(ahead, quantiles=_LEVELS, series=series)
    shown = when >= last - _SHOWN * float(ahead[-1] - last)
    low, _, high = found["quantiles"]
    after = (ahead, found["mean"], low, high)
    return plot_forecast((when[shown], values[shown]), after, labels, path)


def _ahead(span: int, last: float, step: float) -> Tensor:
    steps = max(span // 5, 1)
    return last + step * torch.linspace(1, steps, min(steps, _AHEAD), dtype=torch.float64)


def _posterior(
    model: HurstModel, path: Path, times: Any, series: int, labels: tuple[str, str]
) -> Path:
    from scipy.stats import gaussian_kde

    posterior = model.result_.posterior
    assert isinstance(posterior, DrawsPosterior)
    draws = posterior.draws["hurst"].flatten(0, 1)
    draws = draws[:, series] if draws.dim() == 2 else draws
    grid = torch.linspace(float(draws.min()), float(draws.max()), _POINTS, dtype=torch.float64)
    density = gaussian_kde(draws.numpy())(grid.numpy())
    names = ("Hurst index H", "posterior density")
    return plot_curve(grid, density, torch.zeros_like(grid), names, path)


def _variogram(
    model: HurstModel, path: Path, times: Any, series: int, labels: tuple[str, str]
) -> Path:
    found = model.variogram(series=series)
    levels = torch.tensor(_LEVELS, dtype=torch.float64)
    low, middle, high = torch.quantile(found.replicated, levels, dim=1)
    curves = {
        "model, 90 % of replicates": (middle, low, high),
        "data": (found.data, found.data, found.data),
    }
    unit = (f"lag, {labels[0]}", f"mean squared change of {labels[1]}")
    return plot_curves(found.lags, curves, unit, path, logarithmic=True, log_x=True)
