"""Futures and replicates of a fitted series against their closed forms; a model that is loaded."""

import pytest
import torch

from probkit.errors import CheckpointError, ConfigurationError
from probkit.fractional import HurstModel
from probkit.fractional.forecast import EndState, forecast
from probkit.fractional.likelihood import filter_series
from probkit.fractional.series import prepare_series
from probkit.fractional.simulate import sample_futures, sample_series
from probkit.fractional.system import fractional_system
from probkit.fractional.variogram import sample_variogram
from probkit.infer import DrawsPosterior, FitResult
from probkit.statespace.fractional import MarkovApproxFBM
from probkit.statespace.fractional_noise import sample_fgn

F64 = torch.float64
DRAWS = 20_000


def repeated(hurst, noise, rate, span, number=DRAWS):
    def many(value):
        return None if value is None else torch.full((number,), value, dtype=F64)

    return fractional_system(many(hurst), many(noise), many(rate), span)


def close_to_law(samples, mean, covariance):
    """Within five standard errors of the moments, every one."""
    root = covariance.diagonal().sqrt()
    assert bool(((samples.mean(1) - mean).abs() < 5 * root / DRAWS**0.5).all())
    gap = (torch.cov(samples) - covariance).abs()
    bound = 5 * ((root[:, None] * root).square() + covariance.square()).sqrt() / DRAWS**0.5
    assert bool((gap < bound).all())


def test_replicates_of_levels_are_noisy_fractional_brownian_motion():
    times = torch.tensor([0.0, 1, 2, 4, 5, 9, 10, 20, 21], dtype=F64)
    series = prepare_series(times.sin(), times, "levels")
    scale, noise = 2.0, 0.3
    system = repeated(0.3, noise, None, series.span)
    spread = torch.full((DRAWS,), scale, dtype=F64)
    drawn = sample_series(system, spread, series, torch.Generator().manual_seed(0))
    process = MarkovApproxFBM(0.3, num_steps=series.span).covariance(times[1:])
    # y_n - y_0 holds the noise of both ends
    unit = torch.eye(len(times) - 1, dtype=F64)
    expected = scale**2 * (process + noise * (unit + 1))
    close_to_law(drawn, torch.zeros(len(times) - 1, dtype=F64), expected)


def test_replicates_of_increments():
    series = prepare_series(sample_fgn(0.7, 12, 1)[0], None, "increments")
    system = repeated(0.7, 0.2, None, series.span)
    spread = torch.ones(DRAWS, dtype=F64)
    drawn = sample_series(system, spread, series, torch.Generator().manual_seed(1))
    row = MarkovApproxFBM(0.7, num_steps=series.span).increment_covariance(12)
    index = torch.arange(12)
    expected = row[(index[:, None] - index).abs()] + 0.2 * torch.eye(12, dtype=F64)
    close_to_law(drawn, torch.zeros(12, dtype=F64), expected)


@pytest.mark.parametrize("rate", [None, 0.1])
def test_futures_have_the_moments_of_the_forecast(rate):
    y = sample_fgn(0.4, 30, 1, seed=2)[0].cumsum(0)
    series = prepare_series(y, None, "levels")
    system = repeated(0.4, 0.1, rate, series.span)
    spread = torch.full((DRAWS,), 1.5, dtype=F64)
    pieces = filter_series(repeated(0.4, 0.1, rate, series.span, 1), series)
    mean, covariance = pieces.mean[0].expand(DRAWS, -1), pieces.covariance.expand(DRAWS, -1, -1)
    end = EndState(mean, covariance, series.elapsed[-1], False)
    gaps = [1.0, 7.0]
    drawn = sample_futures(system, spread, end, gaps, torch.Generator().manual_seed(3))
    mean, sd = (part[:, 0] for part in forecast(system, spread, end, gaps))
    assert bool(((drawn.mean(1) - mean).abs() < 5 * sd / DRAWS**0.5).all())
    assert bool(((drawn.std(1) / sd - 1).abs() < 5 / (2 * DRAWS) ** 0.5).all())


def test_variogram_of_a_line():
    y = 3 * torch.arange(40, dtype=F64)
    y[7] = torch.nan
    series = prepare_series(y, None, "levels")
    lags, squares = sample_variogram(series, series.values.mT)
    assert lags[0] == pytest.approx(39 / 38)  # one of the 38 neighbours is two apart
    assert squares[0, 0] == pytest.approx(9 * (37 + 4) / 38)


@pytest.fixture(scope="module")
def fitted():
    y = sample_fgn(0.3, 100, 1, seed=4)[0].cumsum(0)
    return HurstModel("levels", noise=False, num_samples=50, grid_size=11).fit(y)


def test_a_loaded_model_forecasts_without_data(fitted, tmp_path):
    fitted.save(tmp_path)
    again = HurstModel.load(tmp_path)
    times = [100.0, 105.0]
    for name, value in fitted.predict(times).items():
        torch.testing.assert_close(again.predict(times)[name], value)
    torch.testing.assert_close(again.sample(times, seed=1), fitted.sample(times, seed=1))
    assert again.result_.predict(times)["mean"].shape == (2,)
    assert again.kind == "levels"
    assert not again.noise
    assert "hurst" in again.to_datatree()["posterior"]
    with pytest.raises(ConfigurationError, match="does not hold its data"):
        again.compare()


def test_a_loaded_batch_forecasts_what_was_saved(tmp_path):
    y = sample_fgn(0.3, 40, 12, seed=5)
    model = HurstModel("increments", noise=False, num_samples=20, grid_size=11).fit(y)
    expected = model.predict([41.0], series=11)
    model.save(tmp_path)
    again = HurstModel.load(tmp_path)
    torch.testing.assert_close(again.predict([41.0], series=11), expected)
    assert again.predict([41.0], series=9)["mean"].shape == (1,)
    with pytest.raises(ConfigurationError, match="does not hold the state"):
        again.predict([41.0], series=10)
    with pytest.raises(ConfigurationError, match="no such series"):
        again.predict([41.0], series=12)
    assert again.to_datatree()["posterior"]["hurst"].dims == ("chain", "draw", "series")


@pytest.mark.parametrize("what", ["forecast", "posterior", "variogram"])
def test_figures(fitted, what, tmp_path):
    assert fitted.plot(tmp_path / f"{what}.png", what=what).stat().st_size > 5000


def test_misuse_is_named(fitted, tmp_path):
    with pytest.raises(ConfigurationError, match="not fitted"):
        HurstModel("levels").predict([1.0])
    with pytest.raises(ConfigurationError, match="Unknown figure"):
        fitted.plot(tmp_path / "x.png", what="fit")
    with pytest.raises(ConfigurationError, match="after the data"):
        fitted.sample([50.0])
    other = FitResult(fitted.result_.status, fitted.result_.posterior, fitted.result_.history)
    other.posterior = DrawsPosterior({"x": torch.zeros(1, 3)})
    other.save(tmp_path)
    with pytest.raises(CheckpointError, match="another model"):
        HurstModel.load(tmp_path)
