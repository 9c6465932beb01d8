"""R7: the Hurst posterior against the exact one, the published weights and two estimators."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from benchmarks.baselines.nolds_hurst import dfa, rescaled_range
from benchmarks.fractional.dense import pieces, toeplitz
from benchmarks.frame import Context, Line, Unavailable, row
from probkit.fractional import HurstModel
from probkit.fractional.batch_filter import filter_batch
from probkit.fractional.series import prepare_series
from probkit.fractional.system import FractionalSystem
from probkit.statespace.fractional_l2 import geometric_rates, l2_weights
from probkit.statespace.fractional_noise import fgn_autocovariance, sample_fgn
from probkit.statespace.fractional_tables import HURST_RANGE

F64 = torch.float64
INDICES = (0.1, 0.3, 0.7, 0.9)
STEP = 0.002


@row("R7", "Hurst posterior of exact fractional Gaussian noise, N = 1000, unknown scale")
def posteriors(context: Context) -> Iterator[Line]:
    count, size = context.size(200, 10), context.size(1000, 200)
    for position, hurst in enumerate(INDICES):
        y = sample_fgn(hurst, size, count, seed=100 + position)
        model = HurstModel("increments", noise=False, grid_size=201).fit(y)
        grid, weight = model.grid_.hurst, model.grid_.weight
        ours, exact = weight @ grid, _exact(y, grid).softmax(-1) @ grid
        error = _rmse(ours, hurst)
        name = f"H = {hurst}"
        yield Line(f"step_{hurst}", f"{name}: step of the grid", float(grid.diff().max()))
        yield Line(
            f"exact_{hurst}",
            f"{name}: RMSE of the posterior mean / exact Toeplitz",
            error,
            _rmse(exact, hurst),
        )
        yield Line(f"bias_{hurst}", f"{name}: absolute bias", abs(float(ours.mean()) - hurst))
        below = _below(grid, weight, hurst)
        covered = ((below > 0.05) & (below < 0.95)).double().mean()
        yield Line(f"cover_{hurst}", f"{name}: coverage of 90 % intervals", float(covered))
        yield Line(f"l2_{hurst}", f"{name}: RMSE / published weights", error, _published(y, hurst))
        robust, plain, ranges = _estimators(y[: context.size(100, 10)], hurst)
        yield Line(f"dfa_{hurst}", f"{name}: RMSE / DFA, the better of two fits", error, robust)
        yield Line(f"plain_{hurst}", f"{name}: RMSE / DFA, the other fit", error, plain)
        yield Line(f"rs_{hurst}", f"{name}: RMSE / R/S", error, ranges)


def _rmse(found: Tensor, hurst: float) -> float:
    return float((found - hurst).square().mean().sqrt())


def _below(grid: Tensor, weight: Tensor, hurst: float) -> Tensor:
    """Posterior probability of less than ``hurst`` (R,), uniform inside the cells of the grid."""
    step = grid[1] - grid[0]
    share = ((hurst - grid) / step + 0.5).clamp(0, 1)
    return weight @ share


def _exact(y: Tensor, grid: Tensor) -> Tensor:
    """Log density (R, G) of the exact process on a grid, the scale integrated out."""
    found = []
    for hurst in grid.tolist():
        log_det, quadratic = pieces(toeplitz(fgn_autocovariance(hurst, y.shape[1])), y)
        found.append(-0.5 * (y.shape[1] * quadratic.log() + log_det))
    return torch.stack(found, -1)


def _published(y: Tensor, hurst: float) -> float:
    """RMSE with the authors' five L2 weights at their step limit, the highest rate .5 a step."""
    size = y.shape[1]
    low, high = HURST_RANGE
    grid = torch.linspace(low, high, round((high - low) / STEP) + 1, dtype=F64)
    highest = 0.5 * size  # in units of the whole series, around which rates are symmetric
    rates = geometric_rates(5, 1 / highest, highest)
    weights = l2_weights(grid, rates, 1.0).weights
    zero = torch.zeros_like(grid)
    system = FractionalSystem((rates / size).expand(weights.shape), weights, zero, zero)
    found = filter_batch(system, prepare_series(y, None, "increments"))
    log_density = -0.5 * (size * found.quadratic.log() + found.log_variance)
    return _rmse(log_density.softmax(-1) @ grid, hurst)


def _estimators(y: Tensor, hurst: float) -> tuple[float, float, float]:
    """RMSE of DFA by the better and the other line fit, and of R/S; a quarter second a series."""
    np.random.seed(0)  # noqa: NPY002 (the robust line of scikit-learn draws from it)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nolds warns of its own defaults
            lines = torch.tensor([dfa(one) for one in y.numpy()], dtype=F64)
            ranges = torch.tensor([rescaled_range(one) for one in y.numpy()], dtype=F64)
    except ModuleNotFoundError as error:
        raise Unavailable("needs nolds and scikit-learn") from error
    better, other = sorted(_rmse(column, hurst) for column in lines.mT)
    return better, other, _rmse(ranges, hurst)
