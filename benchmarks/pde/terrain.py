"""P20: patches of masked terrain filled in with a biharmonic prior.

The surface of least bending, whose gaps satisfy the biharmonic equation, is u with Laplacian white
noise: ``u_xx + u_yy = 0`` up to a standard deviation that held-out patches of each window choose.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import torch
from scipy.interpolate import CloughTocher2DInterpolator
from torch import Tensor

from benchmarks.frame import Context, Line, row
from probkit.pde import PDE, Box, GPSolver, PDESolution, Problem, Term

__all__ = ["heights", "infill"]

_FILE = "jacksboro_fault_dem.npz"
_WINDOW, _PATCH = 36, 8
_NORMAL_90 = 1.644854
_BENDING = tuple(2.0 ** (k / 2) for k in range(-3, 5))
"""tried, times the root mean square bending of the window's known cells"""
_ROUGHNESS = 0.5
_PDE = PDE([Term(1.0, (2, 0)), Term(1.0, (0, 2))])


class Flat:
    """A prior that leaves everything to equation and data."""

    def spectral_density(self, frequency: Tensor) -> Tensor:
        return torch.full_like(frequency, 1e4)


@row("P20", "terrain with a biharmonic prior")
def terrain(context: Context) -> Iterator[Line]:
    rmse, cubic, coverage = infill(heights(_FILE, "elevation"), context.size(24, 2), seed=0)
    what = f"patches of {_PATCH} x {_PATCH}: RMSE in m (baseline: cubic interpolation)"
    yield Line("rmse", what, rmse, cubic)
    yield Line("coverage", "coverage of 90 % intervals", coverage)


def heights(file: str, name: str) -> np.ndarray:
    """A map of heights that ships with matplotlib."""
    folder = Path(matplotlib.__file__).parent / "mpl-data" / "sample_data"
    found: np.ndarray = np.load(folder / file)[name].astype(float)
    return found


def infill(surface: np.ndarray, count: int, *, seed: int) -> tuple[float, float, float]:
    """RMSE over held-out patches, that of cubic interpolation, and coverage of 90 % intervals."""
    rng = np.random.default_rng(seed)
    ours, cubic, inside = [], [], []
    for _ in range(count):
        top = int(rng.integers(surface.shape[0] - _WINDOW))
        left = int(rng.integers(surface.shape[1] - _WINDOW))
        window = surface[top : top + _WINDOW, left : left + _WINDOW]
        held = np.zeros_like(window, dtype=bool)
        edge = (_WINDOW - _PATCH) // 2
        held[edge : edge + _PATCH, edge : edge + _PATCH] = True
        solution, mean = _fill(window, held)
        place = torch.from_numpy(np.argwhere(held).astype(float))
        found = solution.result.predict(place)
        truth = window[held]
        error = (found["mean"] + mean).numpy() - truth
        ours.append(error**2)
        sd = (found["sd"].square() + _ROUGHNESS**2).sqrt().numpy()
        inside.append(np.abs(error) < _NORMAL_90 * sd)
        known = np.argwhere(~held)
        other = CloughTocher2DInterpolator(known, window[~held])(np.argwhere(held))
        cubic.append((other - truth) ** 2)
    rmse, other_rmse = (float(np.sqrt(np.mean(squares))) for squares in (ours, cubic))
    return rmse, other_rmse, float(np.mean(inside))


def _fill(window: np.ndarray, held: np.ndarray) -> tuple[PDESolution, float]:
    """The solution, and the mean taken off.

    The bending is that which predicts four further patches of the window best: the evidence of the
    whole window asks for how rough it is on average, these for how far a gap may be off.
    """
    hidden = np.zeros_like(held)
    for row_, column in itertools.product((4, _WINDOW - 10), repeat=2):
        hidden[row_ : row_ + 6, column : column + 6] = True
    typical = _typical_bending(window, held)
    best, chosen = -math.inf, typical
    for bending in (share * typical for share in _BENDING):
        solution, mean = _solve(window, held | hidden, bending)
        found = solution.result.predict(torch.from_numpy(np.argwhere(hidden).astype(float)))
        spread = (found["sd"].square() + _ROUGHNESS**2).sqrt()
        score = torch.distributions.Normal(found["mean"] + mean, spread)
        value = float(score.log_prob(torch.from_numpy(window[hidden])).sum())
        if value > best:
            best, chosen = value, bending
    return _solve(window, held, chosen)


def _typical_bending(window: np.ndarray, held: np.ndarray) -> float:
    """Root mean square of second differences among known cells."""
    known = np.where(held, np.nan, window)
    sides = known[2:, 1:-1] + known[:-2, 1:-1] + known[1:-1, 2:] + known[1:-1, :-2]
    return float(np.sqrt(np.nanmean((sides - 4 * known[1:-1, 1:-1]) ** 2)))


def _solve(window: np.ndarray, held: np.ndarray, bending: float) -> tuple[PDESolution, float]:
    mean = float(window[~held].mean())
    x = torch.from_numpy(np.argwhere(~held).astype(float))
    y = torch.from_numpy(window[~held] - mean)
    box = Box([(0.0, _WINDOW - 1.0)] * 2, _WINDOW)
    problem = Problem(_PDE, box, (), 0.0, noise=bending, data=(x, y, _ROUGHNESS))
    solver = GPSolver(prior=Flat(), band_limit=0.5, extension=1.25)
    return solver.fit(problem), mean
