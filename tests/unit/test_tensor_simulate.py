"""Simulated tensors have the moments and the structure that were asked for."""

import pytest
import torch

from probkit.errors import ConfigurationError
from probkit.tensor.simulate import simulate_functional_tucker


def brute_force(data):
    """f recomputed entry by entry from the core and the factors."""
    rows = []
    for k, (grid, factor) in enumerate(zip(data.grids, data.factors, strict=True)):
        rows.append(factor[torch.searchsorted(grid, data.x[:, k].contiguous())])
    return torch.einsum("abc,na,nb,nc->n", data.core, *rows)


@pytest.mark.parametrize(("structure", "rank"), [("cp", 2), ("tucker", (2, 3, 4))])
def test_latent_values_follow_from_core_and_factors(structure, rank):
    data = simulate_functional_tucker(
        200, structure=structure, rank=rank, scale=1.5, intercept=2.0, generator=1
    )
    torch.testing.assert_close(data.f, brute_force(data) + 2.0, rtol=1e-12, atol=1e-12)
    assert float((data.f - 2.0).std()) == pytest.approx(1.5)


def test_noise_has_its_size_and_outliers_are_marked():
    data = simulate_functional_tucker(
        20_000, noise=0.2, outlier_fraction=0.05, generator=2, noise_is_relative=True
    )
    residual = data.y - data.f
    assert data.noise == pytest.approx(0.2 * float(data.f.std()))
    assert float(residual[~data.outlier].std()) == pytest.approx(data.noise, rel=0.03)
    assert float(data.outlier.double().mean()) == pytest.approx(0.05, abs=0.006)
    assert float(residual[data.outlier].abs().min()) > 15 * data.noise


def test_paths_have_the_kernel_covariance():
    grids = [
        simulate_functional_tucker(
            1, num_coordinates=(2, 2), lengthscales=(0.3, 0.3), rank=4000, nu=0.5, generator=seed
        )
        for seed in range(3)
    ]
    for data in grids:
        grid, paths = data.grids[0], data.factors[0]
        expected = torch.exp(-(grid[1] - grid[0]) / 0.3)
        assert float((paths[0] * paths[1]).mean()) == pytest.approx(float(expected), abs=0.07)


@pytest.mark.parametrize("dispersion", [2.0, 8.0])
def test_negative_binomial_moments(dispersion):
    data = simulate_functional_tucker(
        100_000, likelihood="negative_binomial", dispersion=dispersion, scale=0.3, generator=3
    )
    mean = torch.exp(data.f)
    excess = (data.y - mean).square() - mean
    assert float((data.y / mean).mean()) == pytest.approx(1.0, abs=0.02)
    assert float((excess / mean.square()).mean()) == pytest.approx(1 / dispersion, rel=0.15)


def test_student_t_and_bernoulli():
    data = simulate_functional_tucker(50_000, likelihood="student_t", df=5.0, generator=4)
    variance = float((data.y - data.f).var())
    assert variance == pytest.approx(0.01 * 5 / 3, rel=0.1)
    labels = simulate_functional_tucker(50_000, likelihood="bernoulli", generator=4)
    assert set(labels.y.unique().tolist()) == {0.0, 1.0}
    assert float((labels.y - torch.sigmoid(labels.f)).mean()) == pytest.approx(0.0, abs=0.01)


def test_unseen_coordinates_never_appear_among_the_seen():
    data = simulate_functional_tucker(3000, unseen_fraction=0.2, generator=5)
    assert 0.3 < float(data.unseen.double().mean()) < 0.7
    held_out = 0
    for k, grid in enumerate(data.grids):
        held_out += int((~torch.isin(grid, data.x[~data.unseen, k])).sum())
    assert held_out >= 0.2 * (60 + 80 + 100)


def test_same_seed_same_numbers():
    first, second = (simulate_functional_tucker(100, generator=7) for _ in range(2))
    assert torch.equal(first.y, second.y) and torch.equal(first.x, second.x)


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"rank": (2, 2)}, "rank"),
        ({"rank": (2, 3, 4)}, "rank"),
        ({"lengthscales": (0.1,)}, "lengthscales"),
        ({"nu": 1.0}, "nu"),
        ({"likelihood": "gamma"}, "likelihood"),
        ({"structure": "tree"}, "structure"),
        ({"likelihood": "poisson", "outlier_fraction": 0.1}, "outlier_fraction"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, where):
    with pytest.raises(ConfigurationError, match=where):
        simulate_functional_tucker(10, generator=0, **settings)
