"""The coordinate of the Hurst index: same posterior, another unknown, and a straighter one."""

import math

import pyro
import pytest
import torch
from scipy.interpolate import CubicSpline

from probkit.fractional.grid import NOISE_RANGE, grid_log_density, grid_posterior, reversion_range
from probkit.fractional.index_coordinate import IndexCoordinate
from probkit.fractional.model import hurst_model, series_log_likelihood
from probkit.fractional.series import prepare_series
from probkit.statespace.fractional_noise import sample_fgn
from probkit.statespace.fractional_tables import HURST_RANGE

F64 = torch.float64


@pytest.fixture(scope="module")
def series():
    noise = torch.randn(2, 120, generator=torch.Generator().manual_seed(0), dtype=F64)
    y = sample_fgn(0.2, 120, 2, seed=0).cumsum(-1) + 0.3 * noise
    return prepare_series(y, None, "levels")


@pytest.fixture(scope="module")
def coordinate(series):
    return IndexCoordinate(series, reversion=False)


def test_density_is_that_of_the_plain_model(series, coordinate):
    """p(offset, noise) d offset = p(hurst, noise) d hurst at any point."""
    plain = hurst_model(series, noise=True, reversion=False)
    moved = hurst_model(series, noise=True, reversion=False, coordinate=coordinate)
    for log_noise, offset in ((-3.0, 0.4), (1.5, -0.7)):
        values = {"log_noise": torch.tensor(log_noise, dtype=F64)}
        values["scale_offset"] = torch.tensor(0.1, dtype=F64)
        z = torch.tensor(offset, dtype=F64, requires_grad=True)
        hurst = coordinate.hurst(values["log_noise"], z)
        stretch = torch.autograd.grad(hurst, z)[0].log()
        with_offset = pyro.condition(moved, {**values, "hurst_offset": z.detach()})
        with_hurst = pyro.condition(plain, {**values, "hurst": hurst.detach()})
        found = pyro.poutine.trace(with_offset).get_trace()
        expected = pyro.poutine.trace(with_hurst).get_trace().log_prob_sum() + stretch
        torch.testing.assert_close(found.log_prob_sum(), expected, rtol=1e-12, atol=1e-12)
        assert found.nodes["hurst"]["value"] == hurst


def test_centre_is_the_conditional_mean(series, coordinate):
    unit = (torch.arange(121, dtype=F64) + 0.5) / 121
    knots = torch.linspace(*NOISE_RANGE, 15, dtype=F64)
    index = HURST_RANGE[0] + (HURST_RANGE[1] - HURST_RANGE[0]) * unit
    density = grid_log_density(series, index, knots, reversion=False)
    mean = torch.softmax(density, 0).mT @ torch.logit(unit)
    points = torch.linspace(*NOISE_RANGE, 200, dtype=F64)
    spline = CubicSpline(knots, mean, bc_type="natural")
    expected = torch.as_tensor(spline(points))
    torch.testing.assert_close(coordinate.centre(points), expected, rtol=0, atol=1e-10)


def test_density_of_the_grid(series):
    """One series: as the grid has it."""
    one = prepare_series(series.values[:1].cumsum(-1), None, "levels")
    whole = grid_posterior(one, noise=True, reversion=False, size=5)
    hurst, noise = torch.unique(whole.hurst), torch.unique(whole.log_noise)
    density = grid_log_density(one, hurst, noise, reversion=False)
    found = torch.softmax(density.flatten(), 0)
    torch.testing.assert_close(found, whole.weight[0], rtol=1e-9, atol=1e-15)


def test_density_sums_over_the_reversion(series):
    """The scale at its maximum, as two values of the likelihood give it, and fifteen rates."""
    hurst, noise = torch.tensor([0.2, 0.4], dtype=F64), torch.tensor([-2.0], dtype=F64)
    rates = torch.linspace(*reversion_range(series), 15, dtype=F64)
    count = len(series.values) * series.num_observed

    def profile(h, rate):
        at = [series_log_likelihood(series, h, s, noise[0], rate) for s in hurst.new_tensor([0, 1])]
        quadratic = 2 * (at[1] - at[0] + count) / (1 - math.exp(-2))
        scale = 0.5 * torch.log(quadratic / count)
        return series_log_likelihood(series, h, scale, noise[0], rate)

    each = torch.stack([torch.stack([profile(h, rate) for rate in rates]) for h in hurst])
    expected = torch.logsumexp(each, -1).diff()
    found = grid_log_density(series, hurst, noise, reversion=True)[:, 0].diff()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_index_hardly_depends_on_the_noise(series, coordinate):
    """Along the bend of the posterior the offset stays where it is."""
    unit = (torch.arange(200, dtype=F64) + 0.5) / 200
    index = HURST_RANGE[0] + (HURST_RANGE[1] - HURST_RANGE[0]) * unit
    noise = torch.linspace(-6, 3, 37, dtype=F64)
    weight = torch.softmax(grid_log_density(series, index, noise, reversion=False).flatten(), 0)
    logit, log_noise = torch.logit(unit)[:, None], noise[None]
    offset = logit - coordinate.centre(log_noise)

    def share(values):
        """Of the variance, what the noise explains."""
        table = weight.reshape(200, 37)
        rows = table.sum(0)
        mean = (table * values).sum(0) / rows
        centred = (rows * (mean - (rows * mean).sum()).square()).sum()
        whole = (table * (values - (rows * mean).sum()).square()).sum()
        return float(centred / whole)

    assert share(offset) < 0.02
    assert share(logit.expand(200, 37)) > 0.2
    assert math.isfinite(float(offset.abs().max()))
