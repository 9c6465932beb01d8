"""The filter against dense covariances, and the posterior of the Hurst index."""

from __future__ import annotations

import math

import pytest
import torch

from probkit.errors import ConfigurationError, DataError, FitWarning, ShapeError
from probkit.fractional import HurstModel
from probkit.fractional.likelihood import filter_series
from probkit.fractional.series import prepare_series
from probkit.fractional.system import fractional_system
from probkit.infer import FitResult, Laplace
from probkit.statespace.fractional import MarkovApproxFBM
from probkit.statespace.fractional_noise import fgn_autocovariance, sample_fgn

F64 = torch.float64
NOISE = 0.3


def number(value):
    return torch.tensor(value, dtype=F64)


def dense(covariance, values):
    root = torch.linalg.cholesky(covariance)
    white = torch.linalg.solve_triangular(root, values[:, None], upper=False)
    return float(2 * root.diagonal().log().sum()), float(white.square().sum())


def uneven(size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    gaps = torch.randint(1, 4, (size,), generator=generator).double()
    return gaps.cumsum(0) * 0.1, torch.randn(size, generator=generator, dtype=F64).cumsum(0)


@pytest.mark.parametrize("hurst", [0.2, 0.5, 0.7])
@pytest.mark.parametrize("reversion", [None, 0.03])
def test_levels_against_dense_with_gaps(hurst, reversion):
    times, y = uneven(200)
    y[[0, 20, 21, 150]] = math.nan
    series = prepare_series(y, times, "levels")
    rate = None if reversion is None else number(reversion)
    system = fractional_system(number(hurst), number(NOISE), rate, series.span)
    pieces = filter_series(system, series)

    seen = ~y.isnan()
    n = (times[seen] - times[seen][0]) / series.step
    share = system.loadings * (system.loadings / (system.rates[:, None] + system.rates)).sum(-1)
    near = torch.exp(-system.rates * (n[:, None] - n).abs()[..., None])
    covariance = (near * share).sum(-1) + system.slope * n[:, None] * n
    covariance = covariance + NOISE * torch.eye(len(n), dtype=F64)
    contrast = torch.eye(len(n), dtype=F64)[1:] - torch.eye(len(n), dtype=F64)[0]
    log_det, quadratic = dense(contrast @ covariance @ contrast.mT, contrast @ y[seen])
    assert float(pieces.log_variance) == pytest.approx(log_det, abs=1e-7)
    assert float(pieces.quadratic) == pytest.approx(quadratic, abs=1e-7)


@pytest.mark.parametrize("hurst", [0.1, 0.5, 0.8])
def test_increments_against_dense(hurst):
    y = sample_fgn(hurst, 300, 1, seed=3)[0]
    y[[5, 6, 100]] = math.nan
    series = prepare_series(y, None, "increments")
    system = fractional_system(number(hurst), number(NOISE), None, series.span)
    pieces = filter_series(system, series)
    row = MarkovApproxFBM(hurst, num_steps=series.span).increment_covariance(300)
    index = torch.arange(300)
    seen = ~y.isnan()
    covariance = row[(index[:, None] - index).abs()] + NOISE * torch.eye(300, dtype=F64)
    log_det, quadratic = dense(covariance[seen][:, seen], y[seen])
    assert float(pieces.log_variance) == pytest.approx(log_det, abs=1e-7)
    assert float(pieces.quadratic) == pytest.approx(quadratic, abs=1e-7)


def test_posterior_is_that_of_the_exact_toeplitz_likelihood():
    size = 300
    y = sample_fgn(0.3, size, 2, seed=4)
    model = HurstModel("increments", noise=False).fit(y)
    grid = model.grid_.hurst
    found = (model.grid_.weight * grid).sum(-1)
    index = torch.arange(size)
    density = []
    for hurst in grid.tolist():
        row = fgn_autocovariance(hurst, size)
        log_det, _ = dense(row[(index[:, None] - index).abs()], y[0])
        squares = [dense(row[(index[:, None] - index).abs()], one)[1] for one in y]
        density.append([-0.5 * (size * math.log(s) + log_det) for s in squares])
    weight = torch.tensor(density, dtype=F64).softmax(0)
    torch.testing.assert_close(found, weight.mT @ grid, rtol=0, atol=2e-3)


def test_grid_and_laplace_agree():
    y = sample_fgn(0.4, 60, 1, seed=5)[0].cumsum(0)
    times = 0.5 * torch.arange(60, dtype=F64)
    grid = HurstModel("levels", noise=False, num_samples=4000).fit(y, times).result_
    engine = Laplace(num_posterior_samples=4000)
    laplace = HurstModel("levels", noise=False, engine=engine).fit(y, times).result_
    for site, sd in grid.posterior.sd().items():
        gap = grid.posterior.mean()[site] - laplace.posterior.mean()[site]
        assert abs(float(gap)) < 0.35 * float(sd), site
    ahead = [result.predict([30.0])["sd"] for result in (grid, laplace)]
    assert float(ahead[0] / ahead[1]) == pytest.approx(1, abs=0.1)


def test_forecast_is_the_conditional_law(tmp_path):
    y = sample_fgn(0.7, 120, 1, seed=6)[0].cumsum(0)
    model = HurstModel("levels", noise=False).fit(y)
    found = model.predict([120.0, 130.0])
    assert bool((found["quantiles"][0] < found["mean"]).all())
    assert float(found["sd"][1]) > float(found["sd"][0])
    # the exact conditional law at the posterior mean
    hurst = float(model.result_.posterior.mean()["hurst"])
    scale = float(model.result_.posterior.mean()["scale"])
    row = fgn_autocovariance(hurst, 120) * scale**2
    index = torch.arange(120)
    covariance = row[(index[:, None] - index).abs()]
    gain = torch.linalg.solve(covariance[:-1, :-1], covariance[:-1, -1])
    expected = float(y[-1] + gain @ y.diff())
    sd = float((covariance[-1, -1] - gain @ covariance[:-1, -1]).sqrt())
    assert float(found["mean"][0]) == pytest.approx(expected, abs=0.1 * sd)
    assert float(found["sd"][0]) == pytest.approx(sd, rel=0.05)
    loaded = FitResult.load(model.save(tmp_path / "result"))
    assert loaded.posterior.mean() == model.result_.posterior.mean()


def test_free_index_wins_only_where_it_should():
    rough = HurstModel("increments", noise=False).fit(sample_fgn(0.2, 300, 1, seed=7)[0])
    brownian = HurstModel("increments", noise=False).fit(sample_fgn(0.5, 300, 1, seed=8)[0])
    assert float(rough.compare(0.5)) > 5
    assert float(brownian.compare(0.5)) < 0


def spoiled(index, value):
    y = sample_fgn(0.5, 50, 1)[0]
    y[index] = value
    return y


@pytest.mark.parametrize(
    ("y", "times", "error", "words"),
    [
        (torch.ones(5), None, ShapeError, "eight values"),
        (torch.ones(20), None, DataError, "zero variance"),
        (spoiled(7, math.inf), None, DataError, "index 7"),
        (spoiled(0, 0.0), torch.arange(50).double().clamp_max(30), DataError, "index 31"),
        (spoiled(0, 0.0), torch.arange(49).double(), ShapeError, "Times and values differ"),
    ],
)
def test_bad_series(y, times, error, words):
    with pytest.raises(error, match=words):
        HurstModel("levels").fit(y, times)


def test_bad_settings():
    with pytest.raises(ConfigurationError, match="expected one of levels, increments"):
        HurstModel("prices")
    with pytest.raises(ConfigurationError, match="property of levels"):
        HurstModel("increments", reversion=True)
    with pytest.raises(DataError, match="evenly spaced"):
        HurstModel("increments").fit(sample_fgn(0.5, 9, 1)[0], torch.arange(9).double() ** 2)
    with pytest.raises(ConfigurationError, match="after the data"):
        HurstModel("increments").fit(sample_fgn(0.5, 50, 1)[0]).predict([3.0])


def test_levels_taken_for_increments_are_noticed():
    y = sample_fgn(0.5, 400, 1, seed=9)[0]
    with pytest.warns(FitWarning, match="increments, not levels"):
        HurstModel("levels", noise=False).fit(y)
