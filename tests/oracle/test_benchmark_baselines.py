"""The benchmarks' baselines do what they claim, on problems with a known answer."""

import math

import numpy as np
import pytest
import torch

from benchmarks.baselines.functional_tucker_ep import FunctionalTuckerEP, Settings
from benchmarks.baselines.interpolation import (
    interpolate_bands,
    interpolate_linear,
    interpolate_tent,
)
from benchmarks.baselines.smoother_loop import matern_model, smooth_loop
from benchmarks.baselines.tensorly_tucker import masked_cp, masked_tucker
from probkit.tensor.simulate import simulate_functional_tucker


@pytest.mark.parametrize("nu", [0.5, 1.5])
def test_smoother_loop_is_the_dense_gaussian_process(nu):
    generator = torch.Generator().manual_seed(0)
    times = torch.rand(15, generator=generator, dtype=torch.float64).sort().values
    values = torch.randn(15, 2, 1, generator=generator, dtype=torch.float64)
    spread = 0.3 * torch.eye(2, dtype=torch.float64)
    model = matern_model(nu, 0.4, 2.0, 2)
    gaps = torch.diff(times, prepend=times[:1])
    start = torch.zeros(model.drift.shape[0], 1, dtype=torch.float64)
    means, covariances = smooth_loop(model, gaps, lambda i: (values[i], spread), start)
    scaled = math.sqrt(2 * nu) / 0.4 * (times[:, None] - times).abs()
    prior = 2.0 * torch.exp(-scaled) * (1 + scaled if nu == 1.5 else 1.0)
    gain = torch.linalg.solve(prior + 0.3 * torch.eye(15), prior).T
    torch.testing.assert_close((model.output @ means)[..., 0], gain @ values[..., 0])
    variance = torch.diagonal(prior - gain @ prior)
    torch.testing.assert_close(covariances[:, 0, 0], variance)


@pytest.mark.parametrize("structure", ["cp", "tucker"])
def test_published_scheme_learns_a_functional_tensor(structure):
    data = simulate_functional_tucker(
        1200, num_coordinates=(12, 14, 16), rank=1, lengthscales=(1.0, 1.0, 1.0), generator=3
    )
    settings = Settings(
        structure=structure, rank=1, nu=1.5, lengthscale=1.0, damping_core=0.5, damping_tau=0.5
    )
    model = FunctionalTuckerEP(data.x[:1000], data.y[:1000], settings)
    for _ in range(30):
        model.epoch()
    error = (model.predict(data.x[1000:]) - data.f[1000:]).square().mean().sqrt()
    assert float(error) < 0.2 * float(data.f.std())


def test_published_scheme_reverts_to_zero_far_from_the_data():
    data = simulate_functional_tucker(
        300, num_coordinates=(6, 6), lengthscales=(0.5, 0.5), generator=1
    )
    model = FunctionalTuckerEP(data.x, data.y, Settings(rank=1, lengthscale=0.5))
    model.epoch()
    outside = torch.tensor([[-50.0, 0.5], [50.0, 0.5]], dtype=torch.float64)
    assert float(model.predict(outside).abs().max()) < 1e-12


def test_interpolations_reproduce_linear_functions():
    rng = np.random.default_rng(0)
    x, queries = rng.random((200, 2)) * [1, 1000], rng.random((50, 2)) * [0.6, 600] + [0.2, 200]

    def plane(points):
        return 2 * points[:, 0] - 0.01 * points[:, 1] + 3

    np.testing.assert_allclose(interpolate_linear(x, plane(x), queries), plane(queries))
    grid = np.broadcast_to(np.arange(12.0), (3, 4, 12))
    observed = np.ones(grid.shape, dtype=bool)
    observed[:, :, [3, 7, 8]] = False
    np.testing.assert_allclose(interpolate_bands(grid, observed), grid)
    inner = interpolate_tent(grid, observed, (1.0, 1.0, 3.0))[:, :, 3]
    np.testing.assert_allclose(inner, 3.0)


def test_tent_reaches_across_wide_gaps():
    values, observed = np.full((2, 2, 30), 4.0), np.zeros((2, 2, 30), dtype=bool)
    observed[0, 0, 0] = True
    np.testing.assert_allclose(interpolate_tent(values, observed), 4.0)


def test_tensorly_completes_a_low_rank_array():
    rng = np.random.default_rng(1)
    factors = [1 + rng.random((size, 2)) for size in (10, 12, 14)]
    values = np.einsum("ar,br,cr->abc", *factors)
    observed = rng.random(values.shape) < 0.7
    scale = values[~observed].std()
    for estimate in (
        masked_tucker(values, observed, (3, 3, 3), num_iterations=300),
        masked_cp(values, observed, 3, num_iterations=300),
    ):
        error = np.sqrt(np.square((estimate - values)[~observed]).mean())
        assert error < 0.05 * scale
