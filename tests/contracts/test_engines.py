"""What every engine keeps: resume is bit-exact, seeds decide, nothing global is left changed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pyro
import pytest
import torch

import probkit
from probkit.errors import ConfigurationError, NumericalError
from probkit.infer import CAVI, HMC, MAP, NUTS, SVI, Gibbs, Laplace, Status
from probkit.infer.callbacks import Callback
from tests import toy_models
from tests.toy_models import ModuleGuide, NormalGibbs, Walk, function_guide, normal_mean

Y = toy_models.normal_data()
SVI_SMALL = SVI(
    steps=60, window=20, num_posterior_samples=50, num_diagnostic_samples=30, checkpoint_every=7
)
CASES = {
    "cavi": (CAVI(max_sweeps=40, checkpoint_every=3), Walk, None, 11),
    "gibbs": (Gibbs(num_samples=30, num_warmup=9, thinning=2), lambda: NormalGibbs(Y), None, 17),
    "svi": (SVI_SMALL, lambda: normal_mean, Y, 23),
    "svi_batch": (
        SVI(steps=60, window=20, batch_size=8, num_posterior_samples=50, num_diagnostic_samples=9),
        lambda: normal_mean,
        Y,
        31,
    ),
    "svi_function_guide": (
        SVI(steps=60, window=20, guide=function_guide, num_posterior_samples=50),
        lambda: normal_mean,
        Y,
        45,
    ),
    "nuts": (NUTS(num_samples=20, num_warmup=15, num_chains=3), lambda: normal_mean, Y, 1),
    "hmc": (
        HMC(num_samples=60, num_warmup=40, num_chains=3, compile="off"),
        lambda: normal_mean,
        Y,
        3,
    ),
    "laplace": (Laplace(num_posterior_samples=50), lambda: normal_mean, Y, 2),
}


def prior_guide(y):
    """A guide without parameters."""
    pyro.sample("mean", pyro.distributions.Normal(torch.zeros((), dtype=y.dtype), 1.0))


class StopAfter(Callback):
    """Ends a fit from outside after some steps, as a user's interrupt does."""

    def __init__(self, steps):
        self.steps = steps

    def start(self, max_steps, step):
        pass

    def step(self, step, state, info):
        if step == self.steps:
            signal.raise_signal(signal.SIGTERM)

    def finish(self, status):
        pass


class Killed(Exception):
    pass


@pytest.fixture
def kill_signal():
    def handler(number, frame):
        raise Killed

    before = signal.signal(signal.SIGTERM, handler)
    yield
    signal.signal(signal.SIGTERM, before)


def test_map_resumes_and_leaves_nothing_behind(tmp_path, kill_signal):
    mine = pyro.param("loc", torch.tensor([7.0]))
    whole = probkit.fit(normal_mean, Y, engine=MAP(), seed=3)
    with pytest.raises(Killed):
        probkit.fit(
            *(normal_mean, Y),
            **{"engine": MAP(), "seed": 3, "checkpoint": tmp_path, "callbacks": [StopAfter(2)]},
        )
    resumed = probkit.fit(normal_mean, Y, engine=MAP(), seed=3, checkpoint=tmp_path, resume=True)
    assert resumed.state.keys() == whole.state.keys()
    assert all(torch.equal(resumed.state[name], whole.state[name]) for name in whole.state)
    assert pyro.get_param_store()["loc"] is mine
    pyro.clear_param_store()


def same(a, b):
    assert a.status is b.status
    assert a.state.keys() == b.state.keys()
    for name in a.state:
        assert torch.equal(a.state[name], b.state[name]), name
    np.testing.assert_array_equal(a.history["objective"], b.history["objective"])
    for name, draws in a.posterior.draws.items():
        assert torch.equal(draws, b.posterior.draws[name]), name


@pytest.mark.parametrize("name", CASES)
def test_resume_from_a_checkpoint_is_bit_exact(name, tmp_path, kill_signal):
    engine, make, data, stop = CASES[name]
    whole = probkit.fit(make(), data, engine=engine, seed=3)
    with pytest.raises(Killed):
        probkit.fit(
            make(), data, engine=engine, seed=3, checkpoint=tmp_path, callbacks=[StopAfter(stop)]
        )
    resumed = probkit.fit(make(), data, engine=engine, seed=3, checkpoint=tmp_path, resume=True)
    same(whole, resumed)


LONGER = {
    "cavi": (CAVI(max_sweeps=15), {"max_sweeps": 40}),
    "gibbs": (
        Gibbs(num_samples=12, num_warmup=9, thinning=2),
        {"num_samples": 30},
    ),
    "hmc": (
        HMC(num_samples=30, num_warmup=40, num_chains=3, compile="off"),
        {"num_samples": 60},
    ),
    "nuts": (NUTS(num_samples=20, num_warmup=15, num_chains=1), {"num_chains": 3}),
}


@pytest.mark.parametrize("name", LONGER)
def test_resuming_a_result_with_more_steps_equals_one_long_fit(name):
    engine, make, data, _ = CASES[name]
    short, changes = LONGER[name]
    first = probkit.fit(make(), data, engine=short, seed=3)
    before = {k: v.clone() for k, v in first.posterior.draws.items()}
    same(probkit.fit(make(), data, engine=engine, seed=3), first.resume(**changes))
    assert all(torch.equal(first.posterior.draws[k], v) for k, v in before.items())


@pytest.mark.parametrize("name", CASES)
def test_seed_decides_and_global_generators_are_left_alone(name):
    engine, make, data, _ = CASES[name]
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    one = probkit.fit(make(), data, engine=engine, seed=3)
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(1)
    same(one, probkit.fit(make(), data, engine=engine, seed=3))
    other = probkit.fit(make(), data, engine=engine, seed=4)
    assert any(not torch.equal(other.posterior.draws[k], v) for k, v in one.posterior.draws.items())


@pytest.mark.parametrize("name", ["svi", "svi_function_guide", "nuts", "hmc", "laplace"])
def test_parameters_of_the_user_survive(name):
    engine, make, data, _ = CASES[name]
    mine = pyro.param("loc", torch.tensor([7.0]))
    probkit.fit(make(), data, engine=engine, seed=0)
    assert list(pyro.get_param_store().keys()) == ["loc"]
    assert pyro.param("loc") is mine or torch.equal(pyro.param("loc"), torch.tensor([7.0]))
    pyro.clear_param_store()


def test_module_guide_is_trained_in_place_and_resumes(tmp_path, kill_signal):
    def engine(guide):
        return SVI(steps=60, learning_rate=0.05, window=20, guide=guide, checkpoint_every=7)

    guide = ModuleGuide()
    whole = probkit.fit(normal_mean, Y, engine=engine(guide))
    assert torch.equal(guide.loc.detach(), whole.state["best.loc"])
    assert {"param.loc", "param.scale", "param.shift$$$weight"} <= whole.state.keys()
    interrupted = {"checkpoint": tmp_path, "callbacks": [StopAfter(33)]}
    with pytest.raises(Killed):
        probkit.fit(normal_mean, Y, engine=engine(ModuleGuide()), **interrupted)
    resumed = probkit.fit(
        normal_mean, Y, engine=engine(ModuleGuide()), checkpoint=tmp_path, resume=True
    )
    same(whole, resumed)


def test_statuses():
    assert probkit.fit(Walk(), engine=CAVI(max_sweeps=3)).status is Status.MAX_STEPS
    assert probkit.fit(Walk(rate=0.9)).status is Status.CONVERGED
    assert probkit.fit(NormalGibbs(Y)).status is Status.CONVERGED
    assert probkit.fit(NormalGibbs(Y), engine=Gibbs(num_samples=3)).status is Status.NOT_MIXED

    class Stuck(NormalGibbs):
        def gibbs_step(self, state, generator):
            noise = torch.randn((), generator=generator, dtype=torch.float64)
            return {**state, "mean": state["mean"] + 1e-6 * noise}

    assert probkit.fit(Stuck(Y), engine=Gibbs(num_samples=50)).status is Status.NOT_MIXED


def test_non_finite_draw_stops_gibbs():
    class Broken(NormalGibbs):
        def gibbs_step(self, state, generator):
            return {**state, "mean": state["mean"] / 0}

    result = probkit.fit(Broken(Y), engine=Gibbs(num_warmup=2))
    assert result.status is Status.NON_FINITE
    assert result.diagnostics["num_draws"] == 0


def test_svi_stops_at_a_gradient_that_is_not_finite():
    def model(y):
        mean = normal_mean(y)
        pyro.factor("cliff", torch.sqrt(pyro.param("edge", torch.zeros(())).abs()))
        return mean

    with pytest.raises(NumericalError, match="gradient of .* site 'cliff'"):
        probkit.fit(model, Y, engine=SVI_SMALL)


def test_svi_goes_on_after_a_gradient_that_was_not_finite_once():
    """A cliff that some draws fall off: retried with other random numbers and shorter steps."""

    def model(y):
        mean = pyro.sample("mean", pyro.distributions.Normal(torch.zeros((), dtype=y.dtype), 2.0))
        below = y.mean() + 0.2 - mean
        cliff = 0 * (below * (below > 0)).sqrt()  # zero, but its slope is NaN beyond
        with pyro.plate("data", len(y)):
            pyro.sample("y", pyro.distributions.Normal(mean, 1.0), obs=y)
        pyro.factor("cliff", cliff)

    settings = {"steps": 200, "learning_rate": 0.05, "window": 50, "compile": "off"}
    result = probkit.fit(model, Y, engine=SVI(max_retries=9, **settings), seed=1)
    assert result.status.ok and len(result.history["objective"]) == 200
    assert np.nansum(result.history["retries"]) >= 1
    none = probkit.fit(model, Y, engine=SVI(max_retries=0, **settings), seed=1)
    assert none.status is Status.NON_FINITE
    budget = probkit.fit(
        normal_mean, Y, engine=SVI(max_seconds=1e-9, num_posterior_samples=20), seed=1
    )
    assert budget.status is Status.OUT_OF_TIME


def test_auto_engine_and_its_reason():
    expected = {"CAVI": Walk(rate=0.9), "Gibbs": NormalGibbs(Y)}
    for engine, model in expected.items():
        record = probkit.fit(model).provenance
        assert record["engine"] == engine and record["reason"].startswith("auto: ")
    record = probkit.fit(normal_mean, Y, engine=SVI_SMALL).provenance
    assert (record["engine"], record["reason"]) == ("SVI", "asked for")


@pytest.mark.parametrize(
    ("model", "data", "engine", "match"),
    [
        (normal_mean, None, CAVI(), "cannot fit this model"),
        (Walk(), None, SVI(), "cannot fit this model"),
        (Walk(), Y, "auto", "hold their data"),
        (normal_mean, Y, "svi", "engine object"),
        (normal_mean, Y, SVI(guide="AutoNothing"), "no such guide"),
        (normal_mean, Y, SVI(guide=prior_guide), "parameter to optimise"),
        (normal_mean, (Y, Y[:3]), SVI(batch_size=2), "share their first dimension"),
    ],
)
def test_impossible_requests_say_so(model, data, engine, match):
    with pytest.raises(ConfigurationError, match=match):
        probkit.fit(model, data, engine=engine)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SVI(steps=0),
        lambda: SVI(elbo="None_ELBO"),
        lambda: Gibbs(num_warmup=-1),
        lambda: NUTS(target_accept=1.0),
        lambda: CAVI(tolerance=0.0),
    ],
)
def test_impossible_settings_say_so(make):
    with pytest.raises(ConfigurationError):
        make()


def test_unknowns_of_single_rows_are_refused_in_minibatches():
    def model(y):
        with pyro.plate("data", len(y)):
            local = pyro.sample("local", pyro.distributions.Normal(torch.zeros_like(y), 1.0))
            pyro.sample("y", pyro.distributions.Normal(local, 1.0), obs=y)

    with pytest.raises(ConfigurationError, match="one value for each row"):
        probkit.fit(model, Y, engine=SVI(batch_size=8))


_KILLED = """
import sys
from probkit.infer import CAVI
from tests.toy_models import Walk

class Announce:
    def start(self, max_steps, step): pass
    def finish(self, status): pass
    def step(self, step, state, info):
        print(step, flush=True)
        if step == 23:
            sys.stdin.read()

CAVI(max_sweeps=40, checkpoint_every=5).fit(
    Walk(), seed=3, checkpoint=sys.argv[1], callbacks=[Announce()]
)
"""


def test_sigkill_and_resume(tmp_path):
    """A process is killed without warning after step 23; step 20 was the last checkpoint."""
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])},
    )
    with process:
        assert process.stdout is not None
        assert [int(process.stdout.readline()) for _ in range(23)] == list(range(1, 24))
        process.kill()
    assert process.returncode == -signal.SIGKILL
    engine = CAVI(max_sweeps=40, checkpoint_every=5)
    resumed = engine.fit(Walk(), seed=3, checkpoint=tmp_path, resume=True)
    same(engine.fit(Walk(), seed=3), resumed)


def test_import_is_cheap():
    code = "import sys, probkit; assert 'torch' not in sys.modules; probkit.fit; probkit.SVI"
    subprocess.run([sys.executable, "-c", code], check=True)
