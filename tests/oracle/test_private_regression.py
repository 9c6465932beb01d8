"""Private regression in weight space, and its kernel for GPyTorch."""

from __future__ import annotations

import math

import gpytorch
import numpy as np
import pytest
import torch

from probkit.errors import ConfigurationError
from probkit.privacy import PrivacyAccountant, PrivateDataError
from probkit.similarity import (
    KERNELS,
    PrivateDistance,
    PrivateGPRegression,
    PrivateKDE,
    PrivateRFFKernel,
    Release,
)
from probkit.similarity.spectral_laws import similarity
from probkit.similarity.weight_space import TARGET_UNIT, WeightPosterior


def sketch_of(n=4000, m=10, **settings):
    generator = torch.Generator().manual_seed(0)
    x = 2 * torch.rand(n, 2, generator=generator, dtype=torch.float64) - 1
    noise = 0.1 * torch.randn(n, generator=generator, dtype=torch.float64)
    y = (2 * x[:, 0]).sin() * x[:, 1].cos() + noise
    sketch = PrivateGPRegression(2, bandwidth=1.5, target_bound=1.5, num_features=m, **settings)
    return sketch.update(x, y), x, y


def test_without_noise_it_is_the_gaussian_process_of_its_kernel():
    sketch, x, y = sketch_of(n=300)
    design = sketch.design
    exact = design.statistic(sketch.state, sketch.count, "replace").double()
    answer = design.decoder(exact, torch.zeros_like(exact), 300).query(x[:20])
    waves = design.features.waves
    phi = torch.stack(waves.real_pairs(x), -1).flatten(1) / math.sqrt(10)
    gram = phi @ phi.mT
    solved = torch.linalg.solve(gram + 0.01 * torch.eye(300), torch.column_stack([y, gram[:, :20]]))
    mean = gram[:20] @ solved[:, 0]
    variance = gram.diagonal()[:20] - (gram[:20] * solved[:, 1:].T).sum(1)
    assert torch.allclose(answer.value, mean, atol=2e-3)
    assert torch.allclose(answer.sd, variance.sqrt(), rtol=2e-2)
    assert not answer.noise_sd.any()


@pytest.mark.parametrize("relation", ["replace", "add_remove"])
def test_no_pair_of_records_moves_the_sums_beyond_the_claim(relation):
    sketch, _, _ = sketch_of(n=2, relation=relation)
    design = sketch.design
    generator = torch.Generator().manual_seed(1)
    x = 6 * torch.randn(60, 2, generator=generator, dtype=torch.float64)
    signs = torch.where(torch.arange(60) % 2 == 0, TARGET_UNIT, -TARGET_UNIT)
    one = torch.stack(
        [design.contributions(a[None], s[None]) for a, s in zip(x, signs, strict=True)]
    ).double()
    other = one[1:] if relation == "replace" else torch.zeros_like(one[1:])
    moved = (one[:-1] - other).split([design.state_size - 20, 20], 1)
    blocks = design.blocks(relation, 1)
    for k, part in enumerate(moved):
        norms = torch.linalg.vector_norm(part, dim=1)
        assert float(norms.max()) <= blocks.l2[k]
        assert float(norms.max()) > 0.4 * blocks.l2[k]
        assert float(part.abs().sum(1).max()) <= blocks.l1[k]


def test_error_bars_hold_the_noise_of_many_releases():
    sketch, x, _ = sketch_of(n=20_000, m=8)
    points = x[:50]
    exact = sketch.design.statistic(sketch.state, sketch.count, "replace").double()
    plain = sketch.design.decoder(exact, torch.zeros_like(exact), 20_000).query(points)
    budget = PrivacyAccountant(epsilon=2, delta=1e-6).reserve("test").budget
    noise = sketch.plan(budget)
    generator = torch.Generator().manual_seed(3)
    gaps = []
    for _ in range(30):
        moved = torch.randn(len(exact), generator=generator, dtype=torch.float64)
        released = exact + noise.variance().sqrt() * moved
        answer = sketch.design.decoder(released, noise.variance(), 20_000).query(points)
        gaps.append((answer.value - plain.value) / answer.sd)
    spread = float(torch.cat(gaps).square().mean().sqrt())
    assert 0.2 < spread < 1.2


def test_noise_below_the_edge_of_the_spectrum_leaves_the_prior():
    zero = torch.zeros(4, dtype=torch.float64)
    found = WeightPosterior(
        torch.eye(4, dtype=torch.float64),
        zero + 1,
        square_sd=1.0,
        linear_sd=1.0,
        noise_sd=0.1,
        amplitude=2.0,
    )
    assert not found.mean.any()
    assert torch.allclose(found.root @ found.root.mT, 2.0 * torch.eye(4, dtype=torch.float64))


def test_release_is_saved_and_answers_for_other_hyperparameters(tmp_path):
    sketch, x, _ = sketch_of(m=8, relation="add_remove")
    accountant = PrivacyAccountant(epsilon=4, delta=1e-6, relation="add_remove")
    release = sketch.release(accountant)
    loaded = Release.load(release.save(tmp_path / "release"))
    assert torch.equal(loaded.query(x[:5]).value, release.query(x[:5]).value)
    assert release.num_records == pytest.approx(4000, rel=0.2)
    wide = release.query(x[:5], amplitude=10.0)
    assert bool((wide.sd > release.query(x[:5]).sd).all())
    with pytest.raises(ConfigurationError, match="option"):
        release.query(x[:5], lengthscale=1.0)


@pytest.mark.parametrize("bad", [[0.0, math.nan], [0.0, math.inf]])
def test_bad_targets_are_refused(bad):
    sketch, x, _ = sketch_of(n=2)
    with pytest.raises(PrivateDataError):
        sketch.update(x[:2], np.array(bad))
    with pytest.raises(ConfigurationError):
        sketch.update(x[:2])


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_kernel_approximates_its_similarity_at_low_rank(name):
    kernel = PrivateRFFKernel(2, name, num_features=4000, seed=1).double()
    kernel.lengthscale = 0.7
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, 6, 2, generator=generator, dtype=torch.float64)
    assert torch.allclose(kernel(y, x).to_dense(), similarity(name, x, y, 0.7), atol=0.06)
    assert torch.allclose(kernel(x).diagonal(), torch.ones(6, dtype=torch.float64))
    fresh = PrivateRFFKernel(2, name, num_features=4000, seed=2).double()
    fresh.load_state_dict(kernel.state_dict())
    assert torch.equal(fresh(x, y).to_dense(), kernel(x, y).to_dense())


def test_kernel_of_a_release_is_the_kernel_that_it_sums():
    x = torch.randn(500, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sketch = PrivateKDE(2, bandwidth=0.8, num_features=50).update(x)
    exact = sketch.design.statistic(sketch.state, 500, "replace").double()
    sums = sketch.design.decoder(exact, torch.zeros_like(exact), 500).query(x[:7]).value
    release = sketch.release(PrivacyAccountant(epsilon=5, delta=1e-6))
    kernel = PrivateRFFKernel.of_release(release)
    assert torch.allclose(kernel(x[:7], x).to_dense().sum(1), sums, atol=0.3)
    table = PrivateDistance(2, bounds=(-5, 5), num_cells=64).update(x)
    with pytest.raises(ConfigurationError):
        PrivateRFFKernel.of_release(table.release(PrivacyAccountant(epsilon=1)))


def test_kernel_trains_in_an_exact_gaussian_process():
    x = torch.linspace(0, 3, 40, dtype=torch.float64)[:, None]
    y = x[:, 0].sin()

    class Model(gpytorch.models.ExactGP):
        def __init__(self):
            super().__init__(x, y, gpytorch.likelihoods.GaussianLikelihood())
            self.mean_module = gpytorch.means.ConstantMean()
            self.covar_module = gpytorch.kernels.ScaleKernel(PrivateRFFKernel(1, num_features=100))

        def forward(self, points):
            return gpytorch.distributions.MultivariateNormal(
                self.mean_module(points), self.covar_module(points)
            )

    model = Model().double()
    evidence = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
    loss = -evidence(model(x), y)
    loss.backward()
    assert float(model.covar_module.base_kernel.raw_lengthscale.grad.abs()) > 0
    model.eval()
    with torch.no_grad():
        points = x[1:] - 0.04
        assert torch.allclose(model(points).mean, points[:, 0].sin(), atol=0.2)
