"""Hurst indices: units of time and value, levels against increments, batches, gaps, dtypes."""

from __future__ import annotations

import warnings

import torch
from hypothesis import given
from hypothesis import strategies as st

from probkit.fractional import FractionalSDE, HurstModel
from probkit.statespace.fractional_noise import sample_fgn
from tests.properties.examples import F64, normal, tried

hursts = st.floats(0.15, 0.85)
seeds = st.integers(0, 2**20)


def fitted(y, times=None, kind="increments", **settings):
    model = HurstModel(kind, **{"noise": False, "grid_size": 11, "num_samples": 100, **settings})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # short series: an index may be at its end
        return model.fit(y, times)


def moments(model):
    posterior = model.result_.posterior
    return {
        f"{k} {n}": v
        for n, p in (("mean", posterior.mean()), ("sd", posterior.sd()))
        for k, v in p.items()
    }


def same(a, b, rtol=1e-8):
    for name, value in a.items():
        torch.testing.assert_close(
            b[name], value, rtol=rtol, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
        )


@tried(2)
@given(hurst=hursts, seed=seeds, num=st.integers(20, 50))
def test_levels_are_cumulated_increments(hurst, seed, num):
    """Levels from 0 on carry the same information as their increments."""
    y = sample_fgn(hurst, num, 1, seed=seed)[0]
    levels = torch.cat([y.new_zeros(1), y.cumsum(0)])
    same(moments(fitted(y)), moments(fitted(levels, kind="levels")), rtol=1e-6)


@tried(2)
@given(hurst=hursts, seed=seeds, unit=st.sampled_from([1e-3, 0.1, 60.0, 86400.0]))
def test_unit_of_time(hurst, seed, unit):
    y = sample_fgn(hurst, 40, 1, seed=seed)[0].cumsum(0)
    times = torch.arange(40, dtype=F64)
    plain = fitted(y, times, kind="levels")
    moved = fitted(y, unit * times, kind="levels")
    draws, other = (m.result_.posterior.draws for m in (plain, moved))
    torch.testing.assert_close(other["hurst"], draws["hurst"])
    torch.testing.assert_close(other["scale"] * unit ** draws["hurst"], draws["scale"])
    ahead = torch.tensor([40.0, 45.0], dtype=F64)
    first, second = plain.predict(ahead), moved.predict(unit * ahead)
    torch.testing.assert_close(second["mean"], first["mean"])
    torch.testing.assert_close(second["quantiles"], first["quantiles"])


@tried(2)
@given(hurst=hursts, seed=seeds, scale=st.sampled_from([1e-6, 3.0, 1e6]), noise=st.booleans())
def test_unit_of_the_values(hurst, seed, scale, noise):
    y = sample_fgn(hurst, 30, 1, seed=seed)[0]
    plain, scaled = (fitted(v, noise=noise, grid_size=11) for v in (y, scale * y))
    a, b = plain.result_.posterior.draws, scaled.result_.posterior.draws
    torch.testing.assert_close(b["hurst"], a["hurst"])
    for name in ("scale", "noise") if noise else ("scale",):
        torch.testing.assert_close(b[name] / scale, a[name])


@tried(1)
@given(seed=seeds, num=st.integers(2, 3))
def test_a_batch_is_its_series(seed, num):
    """A batch shares one grid, so that the quadrature's error is what differs."""
    y = sample_fgn(0.4, 30, num, seed=seed)
    order = torch.randperm(num, generator=torch.Generator().manual_seed(seed))
    together = torch.tensor(fitted(y).result_.diagnostics["log_evidence"])
    turned = torch.tensor(fitted(y[order]).result_.diagnostics["log_evidence"])
    torch.testing.assert_close(turned, together[order])
    alone = torch.tensor([fitted(row).result_.diagnostics["log_evidence"] for row in y])
    torch.testing.assert_close(together, alone.flatten(), rtol=0, atol=0.02)


@tried(2)
@given(seed=seeds)
def test_missing_values_are_left_out_times(seed):
    """A value that is NaN tells as much as a time that is not there."""
    y = sample_fgn(0.4, 30, 1, seed=seed)[0].cumsum(0)
    keep = torch.rand(30, generator=torch.Generator().manual_seed(seed)) < 0.8
    keep[0] = keep[1] = keep[-1] = True
    times = torch.arange(30, dtype=F64)
    missing = fitted(torch.where(keep, y, torch.nan), times, kind="levels")
    absent = fitted(y[keep], times[keep], kind="levels")
    found = [m.result_.posterior.mean() for m in (missing, absent)]
    torch.testing.assert_close(found[1]["hurst"], found[0]["hurst"], rtol=1e-6, atol=1e-8)


@tried(2)
@given(seed=seeds)
def test_float32_series_are_their_float64_copies(seed):
    """Filters run in float64 whatever they are given; nothing but the rounding of y is lost."""
    y = sample_fgn(0.4, 30, 1, seed=seed)[0].float()
    same(moments(fitted(y)), moments(fitted(y.double())))


@tried(2)
@given(hurst=hursts, seed=seeds, scale=st.sampled_from([-2.0, 0.5]), dim=st.integers(1, 3))
def test_paths_of_a_linear_equation_are_linear_in_the_noise(hurst, seed, scale, dim):
    observed = torch.tensor([2, 8])
    sde = FractionalSDE(
        lambda t, x: -x, 0.5, hurst, dt=0.1, num_steps=8, observed=observed, dim=dim
    )
    size = len(sde.process.rates)
    start, noise = normal(3, dim, size + 2, seed=seed), normal(3, 8, dim, size, seed=seed + 1)
    path = sde.path(start, noise).x
    torch.testing.assert_close(sde.path(scale * start, scale * noise).x, scale * path)
    torch.testing.assert_close(sde.path(start[[2, 0, 1]], noise[[2, 0, 1]]).x, path[[2, 0, 1]])
    single = sde.path(start[1], noise[1]).x
    torch.testing.assert_close(single, path[1])
