"""Finite differences of order two and four for u'' = f and u_xx + u_yy = f, Dirichlet data.

Order four on the line is the compact scheme (Numerov): second differences of u equal f averaged
with weights 1, 10, 1. The square is solved by the sine transform. Source: LeVeque, Finite
Difference Methods for Ordinary and Partial Differential Equations (2007), chapters 2 and 3.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.fft import dstn, idstn
from scipy.linalg import solve_banded

__all__ = ["difference_line", "difference_square"]

Function = Callable[..., np.ndarray]


def difference_line(
    source: Function,
    ends: tuple[float, float],
    bounds: tuple[float, float],
    num: int,
    order: int = 2,
) -> tuple[np.ndarray, np.ndarray]:
    """Solve u'' = f on an even grid; nodes and values."""
    x = np.linspace(*bounds, num)
    step = x[1] - x[0]
    f = source(x)
    right = f[1:-1] if order == 2 else (f[:-2] + 10 * f[1:-1] + f[2:]) / 12
    right = right * step**2
    right[0] -= ends[0]
    right[-1] -= ends[1]
    bands = np.ones((3, num - 2))
    bands[1] = -2
    u = np.concatenate([[ends[0]], solve_banded((1, 1), bands, right), [ends[1]]])
    return x, u


def difference_square(
    source: Function, boundary: Function, bounds: tuple[float, float], num: int
) -> tuple[np.ndarray, np.ndarray]:
    """Solve u_xx + u_yy = f by second differences; nodes and values."""
    x = np.linspace(*bounds, num)
    step = x[1] - x[0]
    grid = np.meshgrid(x, x, indexing="ij")
    u = boundary(*grid)
    right = step**2 * source(*grid)[1:-1, 1:-1]
    right[0] -= u[0, 1:-1]
    right[-1] -= u[-1, 1:-1]
    right[:, 0] -= u[1:-1, 0]
    right[:, -1] -= u[1:-1, -1]
    wave = 2 * np.cos(np.pi * np.arange(1, num - 1) / (num - 1)) - 2
    u[1:-1, 1:-1] = idstn(dstn(right, type=1) / (wave[:, None] + wave[None]), type=1)
    return x, u
