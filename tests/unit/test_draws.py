"""Posteriors held as draws stay on the device of their draws."""

import torch

from probkit.infer import DrawsPosterior


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
