"""A Hurst index that changes in time: filter against dense covariances, and the estimator."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from probkit.errors import ConfigurationError, DataError, NotPositiveDefiniteError, ShapeError
from probkit.fractional import (
    MultifractionalBM,
    TimeVaryingHurst,
    series_log_likelihood,
    varying_filter,
)
from probkit.fractional.series import prepare_series
from probkit.fractional.varying import VaryingSeries, slope_deviation, split_gaps, step_ends
from probkit.fractional.varying_filter import filter_by_torch, filter_varying
from probkit.infer import FitResult
from probkit.statespace.fractional_noise import sample_fgn

F64 = {"dtype": torch.float64}
DEFINITIONS = ("increment", "level")
CASES = [("levels", False), ("levels", True), ("increments", False)]


def example(kind, uneven, count=2, size=30):
    increments = sample_fgn(0.4, size, count, seed=0)
    values = increments if kind == "increments" else increments.cumsum(1)
    generator = torch.Generator().manual_seed(1)
    times = 2 * torch.arange(size, **F64)
    if uneven:
        times = (0.5 + torch.rand(size, generator=generator, **F64)).cumsum(0)
    values[:, 7:9] = math.nan
    values[:, 20] = math.nan
    return prepare_series(values, times, kind)


def parameters(series, definition, low=0.2, high=0.9):
    points = VaryingSeries(series, definition).points
    x = torch.linspace(0, 1, len(points), **F64)
    hurst = low + (high - low) * torch.sin(2.5 * x)
    return hurst, 0.3 * torch.cos(4 * x) - 0.2


def dense(series, definition, hurst, log_scale, noise):
    """By the closed covariance of the process, its slope exchanged for the smooth one."""
    elapsed = torch.tensor(series.elapsed, **F64)
    scale = log_scale.exp()
    if definition == "level":
        hurst, scale = hurst[1:], scale[1:]  # the first time has level 0
    process = MultifractionalBM(lambda _: hurst, definition=definition, num_steps=series.span, dt=1)
    C = process.covariance(elapsed)
    _, slope = process.loadings(elapsed)
    gaps = series.gaps
    ours = slope_deviation(hurst, process.rates[0])
    if definition == "level":
        C = C - torch.outer(slope * elapsed, slope * elapsed)
        C = (C + torch.outer(ours * elapsed, ours * elapsed)) * scale[:, None] * scale
        steps = differences(C)
    else:
        steps = differences(C) - torch.outer(slope * gaps, slope * gaps)
        steps = (steps + torch.outer(ours * gaps, ours * gaps)) * scale[:, None] * scale
        C = steps.cumsum(0).cumsum(1)
    eye, seen = torch.eye(len(C), **F64), series.observed
    if series.increments:
        total, values = steps + noise * eye, series.values
    else:  # a flat first level leaves its noise in all differences to it
        total, values = C + noise * (eye + 1), series.values - series.first[:, None]
    law = MultivariateNormal(torch.zeros(int(seen.sum()), **F64), total[seen][:, seen])
    return law.log_prob(values[:, seen]).sum()


def differences(C):
    return torch.nn.functional.pad(C, (1, 0, 1, 0)).diff(dim=0).diff(dim=1)


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize(("kind", "uneven"), CASES)
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_likelihood_is_that_of_the_dense_covariance(kind, uneven, definition, noise):
    series = example(kind, uneven)
    hurst, log_scale = parameters(series, definition)
    noise = torch.tensor(noise, **F64)
    found = VaryingSeries(series, definition).log_likelihood(hurst, log_scale, noise)
    wanted = dense(series, definition, hurst, log_scale, noise)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=0)


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize(("kind", "uneven"), CASES)
def test_gradient_is_that_of_finite_differences(kind, uneven, definition):
    series = example(kind, uneven)
    varying = VaryingSeries(series, definition)
    noise = torch.tensor(0.3, **F64)
    inputs = [x.requires_grad_() for x in (*parameters(series, definition), noise)]
    assert torch.autograd.gradcheck(varying.log_likelihood, inputs, rtol=1e-5)


@pytest.mark.skipif(varying_filter._library() is None, reason="there is no C++ compiler")
@pytest.mark.parametrize(("kind", "uneven"), CASES)
def test_native_filter_is_the_one_in_torch_operations(kind, uneven):
    series = example(kind, uneven)
    varying = VaryingSeries(series, "increment")
    u, g = varying._loadings(*parameters(series, "increment"))
    firsts = [torch.tensor(value, **F64) for value in (0.3, 0.2)]
    inputs = [x.detach().requires_grad_() for x in (u, g, *firsts)]
    pieces, grads = [], []
    for function in (filter_varying, filter_by_torch):
        log_variance, quadratic = function(varying._problem, *inputs)
        pieces.append((log_variance, quadratic))
        weight = torch.tensor([1.0, -0.4], **F64)
        total = 0.7 * log_variance + weight @ quadratic
        grads.append(torch.autograd.grad(total, inputs, allow_unused=True))
    torch.testing.assert_close(*pieces, rtol=1e-10, atol=1e-10)
    for native, slow in zip(*grads, strict=True):
        torch.testing.assert_close(native, torch.zeros_like(native) if slow is None else slow)


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize(("kind", "uneven"), CASES)
@pytest.mark.parametrize(("hurst", "nats"), [(0.15, 1e-8), (0.5, 1e-8), (0.65, 0.01), (0.85, 0.05)])
def test_a_constant_index_is_the_existing_filter(kind, uneven, definition, hurst, nats):
    series = example(kind, uneven)
    varying = VaryingSeries(series, definition)
    flat = torch.ones(len(varying.points), **F64)
    log_scale, log_noise = torch.tensor(-0.3, **F64), torch.tensor(-1.5, **F64)
    noise = (log_noise + 2 * log_scale).exp()
    found = varying.log_likelihood(hurst * flat, log_scale * flat, noise)
    index = torch.tensor(hurst, **F64)
    wanted = series_log_likelihood(series, index, log_scale, log_noise, None)
    assert abs(float(found - wanted)) < nats


def test_long_gaps_are_split_without_change_of_the_law():
    series = example("levels", uneven=True)
    parts = split_gaps(series, 0.4)
    assert len(parts.gaps) > len(series.gaps)
    assert parts.num_observed == series.num_observed
    torch.testing.assert_close(step_ends(parts)[-1], step_ends(series)[-1])
    noise, found = torch.tensor(0.1, **F64), []
    for one in (series, parts):
        flat = torch.ones(len(one.gaps), **F64)
        varying = VaryingSeries(one, "increment")
        found.append(varying.log_likelihood(0.4 * flat, 0 * flat, noise))
    torch.testing.assert_close(*found)


def test_a_variance_that_is_not_positive_is_an_error():
    series = example("levels", uneven=False)
    varying = VaryingSeries(series, "increment")
    u, g = varying._loadings(*parameters(series, "increment"))
    nothing = torch.zeros((), **F64)
    for function in (filter_varying, filter_by_torch):
        with pytest.raises(NotPositiveDefiniteError, match="observation 0"):
            function(varying._problem, 0 * u, 0 * g, nothing, nothing)


@pytest.fixture(scope="module")
def path():
    times = torch.linspace(1 / 400, 1, 400, **F64)
    process = MultifractionalBM(lambda t: 0.3 + 0.4 * t, num_steps=400, dt=1 / 400)
    return process.sample(times, 1, seed=0)[0], times


@pytest.fixture(scope="module")
def fitted(path):
    settings = {"num_knots": 5, "num_samples": 300, "num_diagnostic_samples": 50}
    return TimeVaryingHurst("levels", noise=False, **settings).fit(*path)


def test_recovers_a_rising_index(fitted):
    points = torch.linspace(0.1, 0.9, 9, **F64)
    found = fitted.predict(points)
    truth = 0.3 + 0.4 * points
    assert float((found["mean"] - truth).abs().mean()) < 0.08
    low, high = found["quantiles"]
    assert int(((low < truth) & (truth < high)).sum()) >= 6
    assert bool((found["sd"] > 0).all())
    assert fitted.result_.diagnostics["khat"] < 0.7
    assert fitted.compare() > 0


def test_the_unit_of_values_does_not_matter():
    y = sample_fgn(0.7, 200, 1, seed=3)[0]
    settings = {"hurst": "constant", "scale": "constant", "num_diagnostic_samples": 20}
    first, second = (TimeVaryingHurst("increments", **settings).fit(x * y).result_ for x in (1, 50))
    for name, factor in (("hurst", 1), ("scale", 50), ("noise", 50)):
        mean = first.posterior.mean()[name] * factor
        torch.testing.assert_close(second.posterior.mean()[name], mean, rtol=1e-3, atol=0)
    evidence = [one.diagnostics["log_evidence"] for one in (first, second)]
    assert evidence[0] - evidence[1] == pytest.approx(200 * math.log(50), abs=1e-2)


def test_result_is_kept_and_drawn(fitted, tmp_path):
    loaded = FitResult.load(fitted.save(tmp_path / "fit"))
    draws = fitted.result_.posterior.draws
    assert set(loaded.posterior.draws) == set(draws)
    torch.testing.assert_close(loaded.posterior.draws["hurst"], draws["hurst"])
    assert draws["hurst"].shape == (1, 300, len(fitted.times_))
    assert fitted.plot(tmp_path / "hurst.png").stat().st_size > 1000


def test_constant_index_and_scale_of_increments_with_noise():
    y = sample_fgn(0.7, 300, 1, seed=3)[0] * 4
    model = TimeVaryingHurst("increments", hurst="constant", scale="constant", num_samples=300)
    found = model.fit(y).result_.posterior
    assert found.draws["hurst"].shape == (1, 300, 101)
    assert float(found.draws["hurst"].std(-1).max()) < 1e-12
    mean = found.mean()
    assert float(mean["hurst"][0]) == pytest.approx(0.7, abs=0.15)
    assert float(mean["scale"]) == pytest.approx(4, rel=0.3)


def test_wrong_settings_are_errors_that_name_them():
    for name in ("definition", "scale", "hurst"):
        with pytest.raises(ConfigurationError, match=name):
            TimeVaryingHurst("levels", **{name: "nonsense"})
    with pytest.raises(ConfigurationError, match="kind"):
        TimeVaryingHurst("paths")
    with pytest.raises(ConfigurationError, match="num_knots"):
        TimeVaryingHurst("levels", num_knots=3)
    with pytest.raises(ConfigurationError, match="num_samples"):
        TimeVaryingHurst("levels", num_samples=0)


def test_wrong_data_are_errors_that_name_them(fitted):
    model = TimeVaryingHurst("levels")
    with pytest.raises(ShapeError, match="y"):
        model.fit(torch.ones(3))
    with pytest.raises(DataError, match="increasing"):
        model.fit(torch.arange(10.0), torch.zeros(10))
    with pytest.raises(ConfigurationError, match="times"):
        fitted.predict([2.0])
