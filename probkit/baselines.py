"""Baselines that need no model: the training mean, and linear interpolation of training points."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from probkit.report import CENTRAL, regression_scores

__all__ = ["Baselines"]

# Delaunay triangulations grow quickly with the dimension; these sizes take seconds
_MAX_POINTS = {2: 20_000, 3: 20_000, 4: 2000, 5: 600}
_STRETCH = 30.0
_CLEARLY, _ROUNDING = 0.9, 1e-6  # where all predict alike, no coordinate is stretched
_SUBSAMPLE_SEED = 0


class Baselines:
    """Predictions by the training mean and by linear interpolation, with scores at any points.

    Interpolation is piecewise linear on a Delaunay triangulation of the coordinates scaled to
    [0, 1], and takes the nearest training point outside their hull. One of the coordinates may be
    stretched, so that points of a slice (a year, a depth) are nearer to each other than to the next
    slice: whatever predicts an eighth of the points best when they are left out. Beyond 20 000
    points (2 000 in four dimensions, 600 in more) it uses a random subset, always the same, and its
    name says how large. Points that span fewer dimensions than they have, and more than five
    coordinates, leave the nearest point only. Predictive laws are normal; their spread is that of
    the training targets, and that of the errors at the points left out.

    Args:
        x: training points, (N, K).
        y: their targets, (N,).

    Example:
        >>> x = torch.rand(200, 2, generator=torch.Generator().manual_seed(0))
        >>> scores = Baselines(x[:150], x[:150].sum(1)).scores(x[150:], x[150:].sum(1))
        >>> scores["linear interpolation"]["rmse"] < 0.1 * scores["mean"]["rmse"]
        True
    """

    def __init__(self, x: Float[Tensor, "N K"], y: Float[Tensor, " N"]) -> None:
        self._mean, self._spread = y.mean(), float(y.std(unbiased=False))
        points, values = _distinct(x, y)
        order = np.random.default_rng(_SUBSAMPLE_SEED).permutation(len(points))
        kept = order[: _MAX_POINTS.get(points.shape[1], 5000)]
        self._note = "" if len(kept) == len(points) else f" ({len(kept)} of {len(points)} points)"
        low, high = points.min(0), points.max(0)
        varying = high > low
        if not varying.any():
            varying[0] = True
        unit = 1 / np.where(high > low, high - low, 1.0)
        points, self._low = points - low, low
        left_out = max(len(kept) // 8, 1)
        fitted, checked = kept[left_out:], kept[:left_out]
        self._residual_sd, best = 0.0, np.inf
        rounding = _ROUNDING * self._spread + np.finfo(float).tiny  # tiny: of constant targets
        for factors in _stretches(int(varying.sum())):
            scale = unit.copy()
            scale[varying] *= factors
            scaled = (points * scale)[:, varying]
            error = 0.0
            if len(fitted):
                guess, _ = _interpolate(scaled[fitted], values[fitted], scaled[checked])
                error = float(np.sqrt(np.mean((guess - values[checked]) ** 2)))
            if error + rounding < _CLEARLY * (best + rounding):
                best, self._residual_sd, self._scale = error, error, scale
        self._varying = varying
        self._points, self._values = (points[kept] * self._scale)[:, varying], values[kept]

    def scores(
        self, x: Float[Tensor, "Q K"], y: Float[Tensor, " Q"]
    ) -> dict[str, dict[str, float]]:
        """By name of the baseline, what :func:`~probkit.report.regression_scores` returns."""
        queries = ((x.double().cpu().numpy() - self._low) * self._scale)[:, self._varying]
        prediction, method = _interpolate(self._points, self._values, queries)
        mean = torch.as_tensor(prediction, dtype=y.dtype, device=y.device)
        constant = self._mean.to(y).expand_as(y)
        return {
            "mean": _normal_scores(y, constant, self._spread),
            f"{method}{self._note}": _normal_scores(y, mean, self._residual_sd),
        }


def _distinct(x: Tensor, y: Tensor) -> tuple[NDArray[Any], NDArray[Any]]:
    """Distinct points with their average targets."""
    values = y.double().cpu().numpy()
    points, rows = np.unique(x.double().cpu().numpy(), axis=0, return_inverse=True)
    sums = np.bincount(rows.ravel(), weights=values)
    return points, sums / np.bincount(rows.ravel())


def _normal_scores(y: Tensor, mean: Tensor, sd: float) -> dict[str, float]:
    """Scores of a normal law of constant spread; errors alone if the spread is zero."""
    spread = torch.full_like(mean, sd)
    if sd == 0.0:
        scores = regression_scores(y, mean, spread, log_density=torch.zeros_like(y))
        return {name: scores[name] for name in ("rmse", "mae")}
    levels = [level for pair in CENTRAL.values() for level in pair]
    z = torch.special.ndtri(torch.tensor(levels, dtype=torch.float64)).tolist()
    quantiles = {level: mean + sd * value for level, value in zip(levels, z, strict=True)}
    return regression_scores(y, mean, spread, quantiles)


def _stretches(dimension: int) -> list[tuple[float, ...]]:
    """No coordinate stretched, and each in turn."""
    plain = (1.0,) * dimension
    if dimension == 1 or dimension not in _MAX_POINTS:
        return [plain]
    return [plain, *((1.0,) * k + (_STRETCH,) + plain[k + 1 :] for k in range(dimension))]


def _interpolate(
    points: NDArray[Any], values: NDArray[Any], queries: NDArray[Any]
) -> tuple[NDArray[Any], str]:
    """Predictions and the name of the method that was possible."""
    from scipy.interpolate import LinearNDInterpolator
    from scipy.spatial import KDTree, QhullError

    dimension = points.shape[1]
    if dimension == 1:
        order = np.argsort(points[:, 0])
        found = np.interp(queries[:, 0], points[order, 0], values[order])
        return found, "linear interpolation"
    nearest = values[KDTree(points).query(queries)[1]]
    if dimension not in _MAX_POINTS or len(points) < dimension + 2:
        return nearest, "nearest point"
    try:
        inside = LinearNDInterpolator(points, values)(queries)
    except QhullError:  # all points in a plane: there is no triangulation, and the name says so
        return nearest, "nearest point"
    return np.where(np.isnan(inside), nearest, inside), "linear interpolation"
