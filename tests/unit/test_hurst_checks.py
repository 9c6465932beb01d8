"""A Hurst model that cannot reproduce its series says so; one that can does not."""

import pytest
import torch

from probkit.errors import ConfigurationError
from probkit.fractional import HurstModel
from probkit.statespace.fractional_noise import sample_fgn

SIZE = 400
SMOOTH = sample_fgn(0.3, SIZE, 1, seed=1)[0].cumsum(0)
QUICK = {"noise": False, "grid_size": 21, "num_samples": 100}


def reverting():
    shocks = torch.randn(SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = [shocks[0]]
    for shock in shocks[1:]:
        values.append(0.8 * values[-1] + shock)
    return torch.stack(values)


JUMP = SMOOTH + 10 * (torch.arange(SIZE) >= SIZE // 2)
TREND = sample_fgn(0.5, SIZE, 1, seed=2)[0].cumsum(0) + 0.6 * torch.arange(SIZE)


@pytest.mark.parametrize(
    ("y", "statistic"),
    [
        (JUMP, "largest step"),
        (TREND, "growth of the variogram"),
        (reverting(), "growth of the variogram"),
    ],
    ids=["jump", "trend", "reversion"],
)
def test_what_the_model_does_not_reproduce_is_named(y, statistic):
    model = HurstModel("levels", **QUICK).fit(y)
    assert "HurstModel.check() does so" in model.result_.summary()
    verdict = model.check(seed=0)
    assert f"does not reproduce the {statistic} of 'y'" in str(verdict)
    assert "HurstModel.check() does so" not in model.result_.summary()


@pytest.mark.parametrize("kind", ["levels", "increments"])
def test_series_of_the_model_pass(kind):
    noise = sample_fgn(0.7, SIZE, 2, seed=3)
    model = HurstModel(kind, **QUICK).fit(noise.cumsum(1) if kind == "levels" else noise)
    assert "reproduce" not in str(model.check(seed=0))
    assert set(model.result_.diagnostics["predictive_p"]) == {"y[0]", "y[1]"}


def test_gaps_and_a_fit_without_its_data(tmp_path):
    y = SMOOTH.clone()
    y[50:120:3] = torch.nan
    model = HurstModel("levels", **QUICK).fit(y)
    assert "reproduce" not in str(model.check(seed=0))
    model.save(tmp_path)
    loaded = HurstModel.load(tmp_path)
    assert loaded.result_.diagnostics["predictive_p"] == model.result_.diagnostics["predictive_p"]
    with pytest.raises(ConfigurationError, match="does not hold its data"):
        loaded.check()


@pytest.mark.parametrize("sizes", [(0, 1), (5, 0)])
def test_noise_has_a_step_and_a_path(sizes):
    with pytest.raises(ConfigurationError, match="num_"):
        sample_fgn(0.5, *sizes)
