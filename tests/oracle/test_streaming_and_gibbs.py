"""Appended entries against a refit, and Gibbs draws against the variational fit."""

from __future__ import annotations

import pytest
import torch

from probkit.errors import ConfigurationError
from probkit.infer import Gibbs
from probkit.tensor import FunctionalTucker, simulate_functional_tucker

SETTINGS = {"structure": "cp", "kernels": "matern32", "num_starts": 2, "calibrate": False}


def _case(num_entries=2500):
    data = simulate_functional_tucker(
        num_entries, num_coordinates=(25, 30, 35), rank=1, generator=0
    )
    return data.x, data.y, data.f


def _latent(model, x):
    posterior = model.result_.posterior
    mean, variance = posterior.moments(x)
    offset, scale = posterior.target_scaling
    return offset + scale * mean, scale * variance.sqrt()


@pytest.mark.parametrize("likelihood", ["gaussian", "student_t"])
def test_update_is_nearly_a_refit(likelihood, tmp_path):
    x, y, f = _case()
    order = torch.argsort(x[:, 0])  # new entries lie beyond the old ones: new grid points
    first, second = order[:1200], order[1200:]
    test, second = second[::5], second[torch.arange(len(second)) % 5 != 0]
    model = FunctionalTucker(1, likelihood=likelihood, **SETTINGS).fit(x[first], y[first])
    before = float((_latent(model, x[test])[0] - f[test]).square().mean().sqrt())
    model.update(x[second], y[second])
    after = float((_latent(model, x[test])[0] - f[test]).square().mean().sqrt())
    joined = torch.cat([first, second])
    refit = FunctionalTucker(1, likelihood=likelihood, **SETTINGS).fit(x[joined], y[joined])
    best = float((_latent(refit, x[test])[0] - f[test]).square().mean().sqrt())
    assert after < 0.2 * before
    assert after < 1.3 * best
    assert model.result_.posterior.noise_sd == pytest.approx(0.1, rel=0.1)
    loaded = FunctionalTucker.load(model.save(tmp_path / "run"))
    assert torch.equal(loaded.predict(x), model.predict(x))


def test_update_without_information_changes_nothing_much():
    x, y, _ = _case(800)
    model = FunctionalTucker(1, likelihood="gaussian", **SETTINGS).fit(x, y)
    before = _latent(model, x)
    model.update(x[:1], model.predict(x[:1]))
    after = _latent(model, x)
    assert float(((after[0] - before[0]) / before[1]).abs().max()) < 0.2


@pytest.mark.parametrize("likelihood", ["gaussian", "student_t"])
def test_gibbs_and_variational_fit_agree_on_f(likelihood, tmp_path):
    x, y, f = _case(600)
    variational = FunctionalTucker(1, likelihood=likelihood, **SETTINGS).fit(x[:500], y[:500])
    engine = Gibbs(num_samples=300, num_warmup=50, num_chains=1)
    sampled = FunctionalTucker(1, likelihood=likelihood, engine=engine, **SETTINGS)
    sampled.fit(x[:500], y[:500])
    mean, sd = _latent(variational, x)
    mean_gibbs, sd_gibbs = _latent(sampled, x)
    # the factorised posterior is narrower, never wider on average, and centred alike
    assert float(((mean - mean_gibbs) / sd_gibbs).abs().median()) < 0.4
    assert 0.6 < float((sd / sd_gibbs).median()) < 1.15
    inside = (mean_gibbs - f).abs() < 1.645 * sd_gibbs
    assert 0.75 < float(inside.double().mean()) <= 1.0
    loaded = FunctionalTucker.load(sampled.save(tmp_path / "run"))
    assert torch.equal(loaded.predict(x), sampled.predict(x))
    with pytest.raises(ConfigurationError, match="CAVI"):
        sampled.update(x, y)
    with pytest.raises(ConfigurationError, match="real-valued"):
        FunctionalTucker(1, likelihood="poisson", engine=engine).fit(x, y.abs().round())
