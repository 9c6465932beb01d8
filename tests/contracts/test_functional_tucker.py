"""What users of ``FunctionalTucker`` rely on: errors at the door, files, seeds, units, resume."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from benchmarks.tensor import bad_input
from probkit.infer import CAVI, Status
from probkit.tensor import FunctionalTucker


def _data(num_entries=400, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(num_entries, 2, generator=generator, dtype=torch.float64).mul(30).round() / 30
    noise = torch.randn(num_entries, generator=generator, dtype=torch.float64)
    return x, torch.sin(5 * x[:, 0]) * (1 + x[:, 1]) + 0.1 * noise


def _model(**settings):
    return FunctionalTucker(1, **{"num_starts": 2, "engine": CAVI(max_sweeps=30), **settings})


@pytest.mark.parametrize("case", bad_input._cases(), ids=lambda case: case.name)
def test_bad_input_is_named(case):
    assert bad_input._check(case) is None


def test_save_load_predict_without_data(tmp_path):
    x, y = _data()
    model = _model().fit(x, y)
    loaded = FunctionalTucker.load(model.save(tmp_path / "run"))
    points = torch.rand(20, 2, generator=torch.Generator().manual_seed(1)).double() * 1.4 - 0.2
    for a, b in zip(
        model.predict(points, return_sd=True), loaded.predict(points, return_sd=True), strict=True
    ):
        assert torch.equal(a, b)
    assert loaded.rank == 1
    assert loaded.result_.status == model.result_.status


def test_estimator_pickles():
    x, y = _data(100)
    model = pickle.loads(pickle.dumps(_model(calibrate=False).fit(x, y)))
    assert model.predict(x).shape == (100,)


def test_same_seed_same_numbers_and_two_fits_do_not_interact():
    x, y = _data()
    first = _model().fit(x, y)
    other = _model(likelihood="gaussian", kernels="matern32").fit(x, y + 1)
    second = _model().fit(x, y)
    assert torch.equal(first.predict(x), second.predict(x))
    assert not torch.equal(first.predict(x), other.predict(x))


def test_resume_from_a_checkpoint_equals_the_uninterrupted_fit(tmp_path):
    x, y = _data()
    whole = _model().fit(x, y)
    part = _model(engine=CAVI(max_sweeps=13, checkpoint_every=1))
    part.fit(x, y, checkpoint=tmp_path)
    assert part.result_.status is Status.MAX_STEPS
    resumed = _model(engine=CAVI(max_sweeps=30, checkpoint_every=1))
    resumed.fit(x, y, checkpoint=tmp_path, resume=True)
    assert torch.equal(resumed.predict(x), whole.predict(x))
    assert len(resumed.result_.history["objective"]) == len(whole.result_.history["objective"])


def test_interrupt_leaves_a_usable_result():
    class Interrupt:
        def start(self, max_steps, step): ...

        def step(self, step, state, info):
            if step == 5:
                raise KeyboardInterrupt

        def finish(self, status): ...

    x, y = _data()
    model = _model().fit(x, y, callbacks=[Interrupt()])
    assert model.result_.status is Status.INTERRUPTED
    assert bool(torch.isfinite(model.predict(x)).all())


def test_units_of_inputs_and_target_do_not_matter():
    x, y = _data()
    plain = _model().fit(x, y)
    moved = _model().fit(x * 1e9 + 1.6e9, y * 1e6 + 3e6)
    mean, sd = plain.predict(x, return_sd=True)
    mean_moved, sd_moved = moved.predict(x * 1e9 + 1.6e9, return_sd=True)
    torch.testing.assert_close((mean_moved - 3e6) / 1e6, mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sd_moved / 1e6, sd, rtol=1e-5, atol=1e-5)


def test_arrays_frames_dates_and_missing_targets():
    import pandas as pd

    x, y = _data(150)
    frame = pd.DataFrame({"day": pd.Timestamp("2020-01-01") + pd.to_timedelta(x[:, 0] * 300, "D"),
                          "depth": x[:, 1].numpy()})  # fmt: skip
    target = y.numpy().copy()
    target[::10] = np.nan
    model = _model(calibrate=False).fit(frame, target)
    assert model.num_missing_ == 15
    assert model.input_names_ == ["day", "depth"]
    assert isinstance(model.predict(frame), np.ndarray)


def test_variance_returns_to_the_prior_far_away():
    x, y = _data()
    model = _model(likelihood="gaussian").fit(x, y)
    near, far = torch.tensor([[0.5, 0.5]]).double(), torch.tensor([[500.0, 0.5]]).double()
    _, sd_near = model.predict(near, return_sd=True)
    _, sd_far = model.predict(far, return_sd=True)
    assert float(sd_far) > 2 * float(sd_near)
    assert np.isfinite(float(sd_far))


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial", "bernoulli"])
def test_counts_and_labels(likelihood):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1500, 2, generator=generator).double().mul(20).round() / 20
    f = 1.5 * torch.sin(5 * x[:, 0]) * x[:, 1]
    if likelihood == "bernoulli":
        y = (torch.rand(1500, generator=generator) < torch.sigmoid(3 * f)).double()
        base = float(y.mean())
        baseline = base * np.log(base) + (1 - base) * np.log(1 - base)
    else:
        y = torch.poisson(f.exp(), generator=generator)
        rate = torch.distributions.Poisson(y.mean())
        baseline = float(rate.log_prob(y).mean())
    model = _model(likelihood=likelihood, kernels="matern32").fit(x[:1000], y[:1000])
    assert model.score(x[1000:], y[1000:]) > baseline + 0.05
    assert bool((model.predict(x) >= 0).all())
