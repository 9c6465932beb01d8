"""Functional Tucker fits: order of entries and of modes, units, dtypes, missing targets."""

from __future__ import annotations

import warnings

import torch
from hypothesis import given
from hypothesis import strategies as st

from probkit.infer import CAVI
from probkit.tensor import FunctionalTucker
from tests.properties.examples import normal, tried, uniform

seeds = st.integers(0, 2**20)
POINTS = uniform(8, 2, seed=77)


def data(seed, num=40):
    x = uniform(num, 2, seed=seed).mul(7).round() / 7
    return x, torch.sin(4 * x[:, 0]) * (1 + x[:, 1]) + 0.1 * normal(num, seed=seed)


def fitted(x, y, sweeps=6, **settings):
    common = {"kernels": "matern32", "likelihood": "gaussian", "num_starts": 1, "calibrate": False}
    model = FunctionalTucker(1, **common, engine=CAVI(max_sweeps=sweeps), **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few sweeps: both sides make the same
        return model.fit(x, y)


def same(found, expected, tolerance=1e-6):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@tried(1)
@given(seed=seeds)
def test_order_of_the_entries(seed):
    x, y = data(seed)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    plain = fitted(x, y).predict(POINTS, return_sd=True)
    same(fitted(x[order], y[order]).predict(POINTS, return_sd=True), plain)


@tried(1)
@given(seed=seeds, scale=st.sampled_from([1e-5, 1e4]), shift=st.sampled_from([0.0, -3.0]))
def test_unit_of_the_target(seed, scale, shift):
    x, y = data(seed)
    mean, sd = fitted(x, y).predict(POINTS, return_sd=True)
    moved, moved_sd = fitted(x, scale * (y + shift)).predict(POINTS, return_sd=True)
    same((moved / scale - shift, moved_sd / scale), (mean, sd), 1e-5)


@tried(1)
@given(seed=seeds)
def test_a_missing_target_is_an_absent_entry(seed):
    x, y = data(seed)
    gone = torch.cat([y, torch.full((2,), torch.nan, dtype=y.dtype)])
    with_missing = fitted(torch.cat([x, x[:2]]), gone).predict(POINTS, return_sd=True)
    same(with_missing, fitted(x, y).predict(POINTS, return_sd=True))


@tried(1)
@given(seed=seeds)
def test_order_of_the_modes(seed):
    """The start is random by mode; the answer of a fit that has settled is not."""
    x, y = data(seed)
    plain = fitted(x, y, sweeps=25).predict(POINTS)
    swapped = fitted(x.flip(-1), y, sweeps=25).predict(POINTS.flip(-1))
    assert float((plain - swapped).abs().max()) < 0.02 * float(y.std())


def test_float32_entries_are_their_float64_copies():
    """Fits run in float64 whatever they are given; nothing but the rounding of the data is lost."""
    x, y = (v.float() for v in data(0))
    same(
        fitted(x, y, sweeps=3).predict(POINTS, return_sd=True),
        fitted(x.double(), y.double(), sweeps=3).predict(POINTS, return_sd=True),
    )
