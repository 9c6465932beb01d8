"""Hurst indices that change in time: laws by definition, the filter against dense algebra, H(t)."""

import math

import pytest
import torch

from probkit.errors import ConfigurationError, DataError
from probkit.fractional import TimeVaryingHurst, series_log_likelihood
from probkit.fractional.series import prepare_series
from probkit.fractional.varying import VaryingSeries, split_gaps
from probkit.fractional.varying_filter import filter_by_torch, filter_varying
from probkit.infer import FitResult
from probkit.statespace.multifractal import MultifractionalBM
from probkit.statespace.multifractal_law import (
    field_covariance,
    hurst_points,
    multifractional_covariance,
    sample_multifractional,
)

F64 = torch.float64
UNEVEN = torch.tensor([0.02, 0.05, 0.06, 0.1, 0.2, 0.21, 0.35, 0.5, 0.55, 0.8, 1.0], dtype=F64)


def rising(t):
    return 0.3 + 0.4 * t


def states(process, times):
    """Covariance of all modes at 0 and at the times, by stationarity of each pair; (T K, T K)."""
    g = process.rates
    t = torch.cat([times.new_zeros(1), times])
    gram = 1 / (g[:, None] + g)
    lag = t[:, None] - t
    first = torch.exp(-g * lag.clamp_min(0)[..., None])  # decay of the later one
    second = torch.exp(-g * (-lag).clamp_min(0)[..., None])
    block = gram * first[..., :, None] * second[..., None, :]
    return block.permute(0, 2, 1, 3).reshape(len(t) * len(g), -1)


@pytest.mark.parametrize("definition", ["increment", "level"])
def test_covariance_is_that_of_the_definition(definition):
    process = MultifractionalBM(rising, definition=definition, num_steps=100, dt=0.01)
    weights, slope = process.loadings(UNEVEN)
    size, K = len(UNEVEN), len(process.rates)
    rows = torch.zeros(size, size + 1, K, dtype=F64)
    steps = torch.cat([UNEVEN[:1], UNEVEN.diff()])
    for i in range(size):
        if definition == "level":
            rows[i, i + 1], rows[i, 0] = weights[i], -weights[i]
        else:
            rows[i, i + 1], rows[i, i] = weights[i], -weights[i]
    rows = rows.reshape(size, -1)
    tilt = slope * (UNEVEN if definition == "level" else steps)
    if definition == "increment":
        rows, tilt = rows.cumsum(0), tilt.cumsum(0)
    expected = rows @ states(process, UNEVEN) @ rows.mT + tilt[:, None] * tilt
    torch.testing.assert_close(process.covariance(UNEVEN), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("definition", ["increment", "level"])
def test_the_markov_form_is_near_the_exact_law(definition):
    times = torch.arange(1, 201, dtype=F64) / 200
    process = MultifractionalBM(rising, definition=definition, num_steps=200, dt=1 / 200)
    at = hurst_points(times, definition)
    exact = multifractional_covariance(rising(at), times, definition=definition)
    gap = (process.covariance(times) - exact).abs().max() / exact.diagonal().max()
    assert float(gap) < 0.02


def test_the_field_of_equal_indices_is_fractional_brownian_motion():
    t = torch.tensor([0.3, 0.7, 1.1], dtype=F64)
    for hurst in (0.2, 0.5, 0.8):
        h = torch.full_like(t, hurst)
        found = field_covariance(h[:, None], t[:, None], h, t)
        power = 2 * hurst
        expected = (t[:, None] ** power + t**power - (t[:, None] - t).abs() ** power) / 2
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def problem(definition, *, missing=True, kind="levels"):
    """A short noisy series at uneven times with a gap, and parameters at its points."""
    times = torch.arange(1, 31, dtype=F64) / 30
    keep = torch.ones(30, dtype=torch.bool)
    if kind == "levels":
        keep[[4, 5, 17]] = False
    y = sample_multifractional(rising(times), times, 2, seed=1)
    if kind == "increments":
        y = torch.cat([y[:, :1], y.diff(dim=1)], 1)
    values, points = y[:, keep].clone(), times[keep]
    if missing:
        values[:, 7] = torch.nan
    series = prepare_series(values, points, kind)
    return VaryingSeries(series, definition), series


@pytest.mark.parametrize("kind", ["levels", "increments"])
@pytest.mark.parametrize("definition", ["increment", "level"])
def test_likelihood_is_that_of_the_dense_gaussian(definition, kind):
    varying, series = problem(definition, kind=kind)
    hurst = (0.2 + 0.6 * torch.linspace(0, 1, len(varying.points), dtype=F64)).requires_grad_()
    log_scale = (0.3 * torch.sin(varying.points)).requires_grad_()
    noise = torch.tensor(0.2, dtype=F64, requires_grad=True)
    found = varying.log_likelihood(hurst, log_scale, noise)
    u, g = varying._loadings(hurst, log_scale)
    torch_pieces = filter_by_torch(
        varying._problem, u, g, noise, torch.zeros_like(noise) if series.increments else noise
    )
    native = filter_varying(
        varying._problem, u, g, noise, torch.zeros_like(noise) if series.increments else noise
    )
    for one, other in zip(native, torch_pieces, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    number, count = len(series.values), int(series.observed.sum())
    log_variance, quadratic = torch_pieces
    by_torch = -0.5 * (number * (count * math.log(2 * math.pi) + log_variance) + quadratic.sum())
    torch.testing.assert_close(found, by_torch)
    own = torch.autograd.grad(found, (hurst, log_scale, noise))
    reference = torch.autograd.grad(by_torch, (hurst, log_scale, noise))
    for one, other in zip(own, reference, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-8)
    dense = _dense(varying, series, hurst.detach(), log_scale.detach(), noise.detach())
    torch.testing.assert_close(found.detach(), dense, rtol=1e-8, atol=1e-8)


def _dense(varying, series, hurst, log_scale, noise):
    """The same Gaussian from the modes' joint covariance; levels relative to their first value."""
    u, g = varying._loadings(hurst, log_scale)
    p = varying._problem
    n, steps = u.shape[1], len(u)
    # white parts: modes at the start, then the noise of every step
    P = torch.block_diag(p.covariance, *(p.Q[i] for i in p.index))
    size = n * (steps + 1)
    mode = torch.zeros(n, size, dtype=F64)
    mode[:, :n] = torch.eye(n, dtype=F64)
    level, rows = torch.zeros(size, dtype=F64), []
    for i in range(steps):
        fresh = torch.zeros(n, size, dtype=F64)
        fresh[:, n * (i + 1) : n * (i + 2)] = torch.eye(n, dtype=F64)
        level = p.keep * level + u[i] @ mode + g[i] @ fresh
        mode = p.a[p.index[i]][:, None] * mode + fresh
        rows.append(level)
    seen = torch.stack(rows)[series.observed]
    covariance = seen @ P @ seen.mT + noise * torch.eye(len(seen), dtype=F64)
    if p.keep:  # the error of the first level is in all of them
        covariance = covariance + noise
    law = torch.distributions.MultivariateNormal(torch.zeros(len(seen), dtype=F64), covariance)
    y = series.values[:, series.observed] - (series.first[:, None] if p.keep else 0)
    return law.log_prob(y).sum()


@pytest.mark.parametrize("kind", ["levels", "increments"])
@pytest.mark.parametrize("hurst", [0.25, 0.5])
def test_a_constant_index_gives_the_likelihood_of_the_stationary_filter(hurst, kind):
    varying, series = problem("increment", kind=kind)
    h, log_scale = torch.tensor(hurst, dtype=F64), torch.tensor(-0.4, dtype=F64)
    ratio = torch.tensor(-1.0, dtype=F64)
    expected = series_log_likelihood(series, h, log_scale, ratio, None)
    ones = torch.ones_like(varying.points)
    noise = torch.exp(ratio + 2 * log_scale)
    found = varying.log_likelihood(h * ones, log_scale * ones, noise)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3)  # another slope, see there


def test_long_gaps_are_split():
    times = torch.tensor([0.0, 0.1, 0.2, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7], dtype=F64)
    series = split_gaps(prepare_series(torch.rand(9, dtype=F64), times, "levels"), 0.3)
    assert float(series.gaps.max() * series.step) <= 0.3 + 1e-9
    assert int(series.observed.sum()) == 8
    assert float(series.gaps.sum() * series.step) == pytest.approx(1.7)


def test_a_rising_index_is_found_and_survives_saving(tmp_path):
    times = torch.arange(1, 401, dtype=F64) / 400
    y = sample_multifractional(rising(times), times, 1, seed=3)[0]
    settings = {"noise": False, "scale": "constant", "num_knots": 5, "max_rounds": 4}
    model = TimeVaryingHurst("levels", num_diagnostic_samples=50, **settings).fit(y, times)
    found = model.predict(torch.tensor([0.1, 0.5, 0.9], dtype=F64))
    assert bool(((found["mean"] - rising(torch.tensor([0.1, 0.5, 0.9]))).abs() < 0.1).all())
    assert bool((found["quantiles"][0] < found["quantiles"][1]).all())
    assert model.compare() > 3
    back = FitResult.load(model.save(tmp_path / "saved"))
    mean = model.result_.posterior.mean()["hurst"]
    assert torch.equal(back.posterior.mean()["hurst"], mean)
    assert model.plot(tmp_path / "hurst.png").exists()
    with pytest.raises(ConfigurationError, match="within the span"):
        model.predict([2.0])


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"definition": "both"}, "definition"),
        ({"scale": "free"}, "scale"),
        ({"hurst": "free"}, "hurst"),
        ({"num_knots": 3}, "num_knots"),
        ({"num_samples": 0}, "num_samples"),
    ],
)
def test_impossible_settings_are_named(settings, match):
    with pytest.raises(ConfigurationError, match=match):
        TimeVaryingHurst("levels", **settings)


def test_bad_series_are_refused_before_any_work():
    with pytest.raises(ConfigurationError, match="kind"):
        TimeVaryingHurst("both")
    with pytest.raises(DataError, match="increasing"):
        TimeVaryingHurst("levels").fit(torch.rand(9), torch.zeros(9))
    with pytest.raises(ConfigurationError, match="out of range|outside"):
        MultifractionalBM(lambda t: 2 + t, num_steps=10).covariance(torch.tensor([1.0, 2.0]))
