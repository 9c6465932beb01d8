"""What a user would do without a model: the mean, and linear interpolation of the entries."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator

__all__ = ["interpolate_bands", "interpolate_linear", "interpolate_tent"]


def interpolate_linear(x: np.ndarray, y: np.ndarray, x_test: np.ndarray) -> np.ndarray:
    """Piecewise linear on a Delaunay triangulation of scaled inputs, nearest outside the hull.

    Args:
        x: (N, K) inputs; y: (N,) targets; x_test: (M, K).
    """
    low, high = x.min(0), x.max(0)
    scale = np.where(high > low, high - low, 1.0)
    points, queries = (x - low) / scale, (x_test - low) / scale
    values = LinearNDInterpolator(points, y)(queries)
    outside = np.isnan(values)
    if outside.any():
        values[outside] = NearestNDInterpolator(points, y)(queries[outside])
    return values


def interpolate_bands(values: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Linear interpolation along the last axis of a (.., B) array from the observed entries."""
    bands = np.arange(values.shape[-1])
    flat, mask = values.reshape(-1, len(bands)), observed.reshape(-1, len(bands))
    overall = flat[mask].mean()
    filled = np.empty_like(flat, dtype=float)
    for i, (line, seen) in enumerate(zip(flat, mask, strict=True)):
        filled[i] = np.interp(bands, bands[seen], line[seen]) if seen.any() else overall
    return filled.reshape(values.shape)


def interpolate_tent(
    values: np.ndarray, observed: np.ndarray, widths: tuple[float, ...] = (1.5, 1.5, 2.0)
) -> np.ndarray:
    """Trilinear (tent-weighted) mean of the observed neighbours on a gridded array.

    Cells without an observed neighbour are filled from tents of twice the width, and so on. The
    default widths are the best of those tried on Indian Pines.

    Args:
        values: array; observed: mask of the same shape.
        widths: half width of the tent along each axis, in cells.
    """
    filled, left = np.empty(values.shape), np.ones(values.shape, dtype=bool)
    while left.any():
        weighted, weight = np.where(observed, values, 0.0).astype(float), observed.astype(float)
        for axis, width in enumerate(widths):
            weighted, weight = _tent(weighted, axis, width), _tent(weight, axis, width)
        reached = left & (weight > 0)
        filled[reached] = weighted[reached] / weight[reached]
        left &= ~reached
        widths = tuple(2 * width for width in widths)
    return filled


def _tent(array: np.ndarray, axis: int, width: float) -> np.ndarray:
    from scipy.ndimage import convolve1d

    reach = int(np.ceil(width)) - 1
    offsets = np.arange(-reach, reach + 1)
    return convolve1d(array, 1 - np.abs(offsets) / width, axis=axis, mode="constant")
