"""Calibration finds engines that are right and wrong, counts failures, and resumes."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import probkit
from probkit.errors import ConfigurationError
from probkit.infer import DrawsPosterior, FitResult, Laplace, Status
from probkit.infer.calibration import Calibration

DOUBLE = torch.float64
ROWS = 4


def simulator(generator):
    """A mean with a standard normal prior, four unit-noise data."""
    noise = torch.randn(ROWS + 1, generator=generator, dtype=DOUBLE)
    return {"mu": noise[0]}, noise[0] + noise[1:]


def exact(data, seed, *, width=1.0, shift=0.0, broken=False):
    """The conjugate posterior itself, or one made wrong."""
    generator = torch.Generator().manual_seed(seed)
    sd = (1 + ROWS) ** -0.5
    draws = torch.randn(1, 99, generator=generator, dtype=DOUBLE)
    posterior = DrawsPosterior({"mu": data.sum() * sd**2 + sd * (width * draws + shift)})
    status = Status.NON_FINITE if broken and float(data[0]) > 0 else Status.CONVERGED
    return FitResult(status, posterior, {})


def test_an_exact_engine_is_green_and_its_coverage_nominal():
    found = probkit.calibrate(None, simulator, exact, num_simulations=500)
    assert found.ranks["mu"].shape == (500, 1)
    assert found.p_value > 0.01
    for level in (0.5, 0.9):
        se = math.sqrt(level * (1 - level) / 500)
        assert found.coverage(level) == pytest.approx(level, abs=4 * se)
    assert found.verdict.colour == "green", found.summary()
    assert found.histogram()["mu"].sum() == 500


@pytest.mark.parametrize("wrong", [{"width": 0.4}, {"width": 2.5}, {"shift": 0.7}])
def test_wrong_engines_are_red(wrong):
    def engine(data, seed):
        return exact(data, seed, **wrong)

    found = probkit.calibrate(None, simulator, engine, num_simulations=200)
    assert found.verdict.colour == "red"
    assert found.p_value < 1e-3
    counts = found.histogram(num_bins=10)["mu"][0]
    ends, middle = counts[0] + counts[-1], counts[4] + counts[5]
    assert bool(ends > middle) == (wrong.get("width", 0.1) < 1)


def test_failed_fits_are_counted_and_make_it_red():
    def engine(data, seed):
        return exact(data, seed, broken=True)

    found = probkit.calibrate(None, simulator, engine, num_simulations=40)
    assert 5 < found.num_failed < 35
    assert int((found.ranks["mu"] == -1).sum()) == found.num_failed
    assert found.histogram()["mu"].sum() == 40 - found.num_failed
    assert found.verdict.colour == "red" and "fits failed" in found.summary()


def test_calibration_goes_on_where_it_was_interrupted(tmp_path):
    whole = probkit.calibrate(None, simulator, exact, num_simulations=30, seed=4)
    calls = []

    class Stop:
        def start(self, max_steps, step):
            calls.append(step)

        def step(self, step, state, info):
            if step == 11 and calls == [0]:
                raise KeyboardInterrupt

        def finish(self, status):
            calls.append(status)

    settings = {"num_simulations": 30, "seed": 4, "checkpoint": tmp_path, "callbacks": [Stop()]}
    part = probkit.calibrate(None, simulator, exact, **settings)
    assert part.status is Status.INTERRUPTED and part.num_simulations == 11
    assert "interrupted" in part.summary()
    resumed = probkit.calibrate(None, simulator, exact, resume=True, **settings)
    assert calls[2] == 11
    assert torch.equal(resumed.ranks["mu"], whole.ranks["mu"])


def model(y):
    mu = pyro.sample("mu", dist.Normal(torch.zeros((), dtype=DOUBLE), 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def many(y):
    with pyro.plate("simulations", len(y)):
        mu = pyro.sample("mu", dist.Normal(torch.zeros((), dtype=DOUBLE), 1.0))
        spread = dist.Normal(mu[..., None], 1.0).expand([len(y), ROWS])
        pyro.sample("y", spread.to_event(1), obs=y)


def test_one_fit_serves_many_simulations():
    engine = Laplace(num_posterior_samples=99, num_diagnostic_samples=0)
    found = probkit.calibrate(many, simulator, engine, num_simulations=400, batch=100)
    assert found.ranks["mu"].shape == (400, 1)
    assert found.verdict.colour == "green", found.summary()
    single = probkit.calibrate(model, simulator, engine, num_simulations=10)
    assert single.num_simulations == 10


def test_ties_are_broken_at_random():
    def engine(data, seed):
        return FitResult(
            Status.CONVERGED, DrawsPosterior({"k": torch.zeros(1, 99, dtype=DOUBLE)}), {}
        )

    def constant(generator):
        return {"k": torch.zeros((), dtype=DOUBLE)}, None

    found = probkit.calibrate(None, constant, engine, num_simulations=300)
    assert found.p_value > 0.01


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"num_simulations": 0}, "whole batches"),
        ({"num_simulations": 10, "batch": 3}, "whole batches"),
        ({"num_ranks": 500}, "fewer posterior draws"),
    ],
)
def test_impossible_sizes_say_so(change, match):
    with pytest.raises(ConfigurationError, match=match):
        probkit.calibrate(None, simulator, exact, **{"num_simulations": 6, **change})


def test_truths_without_a_site_are_refused():
    def other(generator):
        truth, data = simulator(generator)
        return {"mean": truth["mu"]}, data

    with pytest.raises(ConfigurationError, match="'mean'"):
        probkit.calibrate(None, other, exact, num_simulations=2)


def test_even_ranks_have_nominal_coverage_exactly():
    found = Calibration({"x": torch.arange(100)[:, None]}, 99, 0, Status.MAX_STEPS)
    assert [found.coverage(level) for level in (0.5, 0.9)] == [0.5, 0.9]
