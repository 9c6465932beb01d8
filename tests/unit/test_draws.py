"""Posteriors held as draws: their device, resampling, and spread that float32 hides."""

import numpy as np
import pytest
import torch

from probkit.infer import DrawsPosterior, FitResult, Status


def test_levels_of_quantiles_are_on_the_device_of_the_draws():
    posterior = DrawsPosterior({"x": torch.zeros(2, 5, 3, device="meta")})
    found = posterior.quantile([0.1, 0.9])["x"]
    assert found.device.type == "meta"
    assert found.shape == (2, 3)


def test_draws_are_resampled_whole():
    draws = torch.arange(12.0).reshape(2, 3, 2)
    posterior = DrawsPosterior({"x": draws, "y": draws[..., 0]})
    found = posterior.sample(50, torch.Generator().manual_seed(0))
    assert torch.equal(found["x"][:, 0], found["y"])
    assert {tuple(row) for row in found["x"].tolist()} == {
        tuple(row) for row in draws.flatten(0, 1).tolist()
    }


@pytest.mark.parametrize(
    ("offset", "dtype", "told"),
    [
        (1e6, torch.float32, True),
        (1e6, torch.float64, False),
        (0.0, torch.float32, False),
        (1.0, torch.float32, False),
    ],
)
def test_a_spread_lost_in_float32_is_told(offset, dtype, told):
    noise = torch.randn(1, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    factor = torch.stack([torch.ones_like(noise), noise], -1).to(dtype)  # one constant entry
    draws = {"mu": (offset + 1e-2 * noise).to(dtype), "factor": factor}
    history = {"objective": np.zeros(1)}
    for diagnostics in ({"khat": 0.1}, {"khat": 2.0}):  # a red verdict leaves amber reasons out
        fit = FitResult(Status.CONVERGED, DrawsPosterior(draws), history, diagnostics)
        summary = fit.summary()
        assert (summary.count("mu has float32 values near 1e+06") == 1) == told
        assert "factor has" not in summary
    good = FitResult(Status.CONVERGED, DrawsPosterior(draws), history, {"khat": 0.1})
    assert good.verdict.colour == ("amber" if told else "green")


def test_one_float32_number_for_all_draws_is_told():
    fit = FitResult(
        Status.CONVERGED, DrawsPosterior({"mu": torch.full((1, 9), 1e6)}), {}, {"khat": 0.1}
    )
    assert "float64 tensors" in str(fit.verdict)


def test_quantiles_of_many_unknowns_are_taken_in_parts(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(2, 50, 3, 4, generator=generator, dtype=torch.float64)
    whole = torch.quantile(
        draws.flatten(0, 1), torch.tensor([0.1, 0.9], dtype=torch.float64), dim=0
    )
    monkeypatch.setattr("probkit.infer.posterior._AT_ONCE", 500)  # five columns of 100 draws
    posterior = DrawsPosterior({"x": draws})
    assert torch.equal(posterior.quantile([0.1, 0.9])["x"], whole)
    assert torch.equal(posterior.quantile(0.1)["x"], whole[0])
