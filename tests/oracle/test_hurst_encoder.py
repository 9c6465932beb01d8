"""The amortised posterior: after its correction by the exact filter it is that of the grid."""

import pytest
import torch

from probkit.errors import ConfigurationError
from probkit.fractional import HurstEncoder, HurstModel
from probkit.statespace.fractional_noise import sample_fgn

F64 = {"dtype": torch.float64}
LENGTH = 48


@pytest.fixture(scope="module")
def plain():
    return HurstEncoder("increments", LENGTH, noise=False).train(steps=80, seed=0)


def test_training_learns_and_the_correction_gives_the_posterior_of_the_grid(plain):
    objective = plain.training_.history["objective"]
    assert objective[-10:].mean() > objective[:10].mean() + 30
    y = sample_fgn(0.4, LENGTH, 4, seed=3)
    found = HurstModel("increments", noise=False, engine=plain, num_samples=4000).fit(y).result_
    exact = HurstModel("increments", noise=False, num_samples=4000).fit(y).result_
    assert found.posterior.draws["hurst"].shape == (1, 4000, 4)
    assert found.diagnostics["khat"] < 0.7
    for site in ("hurst", "scale"):
        sd = exact.posterior.sd()[site]
        gap = (found.posterior.mean()[site] - exact.posterior.mean()[site]) / sd
        assert float(gap.abs().max()) < 0.2, site
        ratio = found.posterior.sd()[site] / sd
        assert float((ratio - 1).abs().max()) < 0.2, site


def test_levels_with_noise():
    encoder = HurstEncoder("levels", LENGTH, num_proposals=3000).train(steps=150, seed=0)
    noise = torch.randn(LENGTH + 1, generator=torch.Generator().manual_seed(1), **F64)
    y = sample_fgn(0.7, LENGTH + 1, 1, seed=4)[0].cumsum(0) + noise
    found = HurstModel("levels", engine=encoder, num_samples=4000).fit(y)
    exact = HurstModel("levels", num_samples=4000).fit(y).result_.posterior
    assert found.result_.importance is not None
    for site in ("hurst", "scale", "noise"):
        gap = found.result_.posterior.mean()[site] - exact.mean()[site]
        assert abs(float(gap)) < 0.25 * float(exact.sd()[site]), site
    assert bool((found.predict([49.0, 50.0])["sd"] > 0).all())


def test_an_encoder_is_loaded_as_it_was_saved(plain, tmp_path):
    y = sample_fgn(0.6, LENGTH, 1, seed=5)[0]
    loaded = HurstEncoder.load(plain.save(tmp_path / "encoder.safetensors"))
    first, second = (
        HurstModel("increments", noise=False, engine=e).fit(y).result_.posterior.draws["hurst"]
        for e in (plain, loaded)
    )
    assert torch.equal(first, second)


def test_series_and_models_that_an_encoder_was_not_made_for(plain, tmp_path):
    y = sample_fgn(0.5, 60, 1, seed=6)[0]
    with pytest.raises(ConfigurationError, match="made for other series"):
        HurstModel("increments", noise=False, engine=plain).fit(y)
    with pytest.raises(ConfigurationError, match="trained for another model"):
        HurstModel("increments", engine=plain)
    with pytest.raises(ConfigurationError, match="length.*32"):
        HurstEncoder("increments", 9)
    from safetensors.torch import save_file

    save_file({"x": y}, tmp_path / "other.safetensors")
    with pytest.raises(ConfigurationError, match="no encoder"):
        HurstEncoder.load(tmp_path / "other.safetensors")
