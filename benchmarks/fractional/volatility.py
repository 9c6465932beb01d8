"""R18: how rough is volatility, by three routes; R8 has the time of a batch."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.fractional.dense import toeplitz
from benchmarks.frame import Context, Line, Unavailable, row
from probkit.fractional import HurstModel
from probkit.infer import NUTS
from probkit.statespace.fractional_noise import fgn_autocovariance

F64 = torch.float64


def log_volatility() -> Tensor:
    """Logarithm of the Garman-Klass volatility of the S&P 500, daily, 1999 - 2018."""
    try:
        from arch.data import sp500
    except ImportError as error:
        raise Unavailable("needs arch") from error
    table = sp500.load()
    high, low = table["High"].to_numpy(), table["Low"].to_numpy()
    opening, close = table["Open"].to_numpy(), table["Close"].to_numpy()
    span, move = (torch.log(torch.tensor(a / b)) for a, b in ((high, low), (close, opening)))
    return 0.5 * torch.log(0.5 * span.square() - (2 * math.log(2) - 1) * move.square())


@row("R18", "S&P 500 log volatility")
def volatility(context: Context) -> Iterator[Line]:
    y = log_volatility()
    y = y[: context.size(len(y), 600)]
    full = HurstModel("levels").fit(y).result_.posterior
    mean, sd = float(full.mean()["hurst"]), float(full.sd()["hurst"])
    yield Line("mean", "H with noise: posterior mean (first trial .146)", mean, 0.146)
    yield Line("sd", "H with noise: posterior sd (first trial .033)", sd, 0.033)
    bare = HurstModel("levels", noise=False).fit(y).result_.posterior.mean()["hurst"]
    yield Line("bare", "H without noise in the model (first trial .073)", float(bare), 0.073)
    window = y[:500]
    model = HurstModel("levels").fit(window)
    found = model.result_.posterior
    exact, _ = dense_posterior(window, model)
    gap = abs(float(found.mean()["hurst"]) - exact) / float(found.sd()["hurst"])
    yield Line("dense", "500 days: gap to the dense exact posterior (sd)", gap)
    engine = NUTS(num_samples=400, num_warmup=200, num_chains=2, full_mass=True)
    drawn = HurstModel("levels", engine=engine).fit(window).result_
    gap = abs(float(drawn.posterior.mean()["hurst"]) - exact) / float(drawn.posterior.sd()["hurst"])
    yield Line("nuts", "500 days: gap of NUTS to the dense exact posterior (sd)", gap)
    worst = max(drawn.diagnostics["r_hat"].values())
    yield Line("r_hat", "500 days: largest r-hat of NUTS", worst)


def dense_posterior(y: Tensor, model: HurstModel) -> tuple[float, float]:
    """Posterior mean and sd of H on the model's own grid, by exact fBM covariances."""
    grid = model.grid_
    assert grid is not None
    assert grid.log_noise is not None
    size = len(y) - 1
    moves = y.diff()
    contrast = 2 * torch.eye(size, dtype=F64)
    contrast -= torch.diag(torch.ones(size - 1, dtype=F64), 1)
    contrast -= torch.diag(torch.ones(size - 1, dtype=F64), -1)
    density = []
    for hurst, log_noise in zip(grid.hurst.tolist(), grid.log_noise.tolist(), strict=True):
        covariance = toeplitz(fgn_autocovariance(hurst, size)) + math.exp(log_noise) * contrast
        root = torch.linalg.cholesky(covariance)
        white = torch.linalg.solve_triangular(root, moves[:, None], upper=False)
        logs = root.diagonal().log().sum()
        density.append(float(-0.5 * size * torch.log(white.square().sum()) - logs))
    weight = torch.tensor(density, dtype=F64).softmax(0)
    mean = float(weight @ grid.hurst)
    return mean, float((weight @ (grid.hurst - mean).square()).sqrt())
