"""Multifractional Brownian motion: both definitions against dense algebra and the exact law."""

import pytest
import torch

from probkit.statespace.multifractal import MultifractionalBM
from probkit.statespace.multifractal_law import (
    field_covariance,
    hurst_points,
    multifractional_covariance,
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
