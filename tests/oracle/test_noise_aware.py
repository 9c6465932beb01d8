"""Noise-aware models: closed-form moments against simulation, and posteriors near the truth."""

from __future__ import annotations

import pytest
import torch

from probkit.errors import ConfigurationError, ShapeError
from probkit.infer import NUTS
from probkit.privacy import PrivacyAccountant
from probkit.similarity import (
    GaussianMixtureRecords,
    GaussianRecords,
    NoiseAwareModel,
    PrivateDistance,
    PrivateKDE,
    ReleaseLikelihood,
)

RECORDS = 3000


def release_of(x, num_features=20, **settings):
    sketch = PrivateKDE(x.shape[1], bandwidth=1.8, num_features=num_features, **settings).update(x)
    return sketch.release(PrivacyAccountant(epsilon=1.0, delta=1e-6))


def gaussian_records(seed=0):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(RECORDS, 2, generator=generator, dtype=torch.float64)
    return torch.tensor([0.5, -0.3], dtype=torch.float64) + 0.7 * noise


def test_covariance_of_the_released_means_is_that_of_simulated_mixtures():
    law = GaussianMixtureRecords(2, 2)
    theta = torch.tensor([0.4, 0.5, -0.3, -0.5, -0.8, 0.9, 0.1], dtype=torch.float64)
    sites = law.sites(theta)
    generator = torch.Generator().manual_seed(1)
    which = torch.multinomial(sites["weight"], 400_000, replacement=True, generator=generator)
    noise = torch.randn(len(which), 2, generator=generator, dtype=torch.float64)
    x = sites["location"][which] + sites["scale"][which, None] * noise
    likelihood = ReleaseLikelihood(release_of(x[:RECORDS], 5), law, ignore_noise=True)
    angle = x @ likelihood._waves.mT
    waves = torch.cat([angle.cos(), angle.sin()], 1)
    assert torch.allclose(likelihood.mean(theta), waves.mean(0), atol=5e-3)
    covariance = likelihood.full_covariance(theta)
    assert torch.allclose(RECORDS * covariance, waves.T.cov(), atol=5e-3)
    assert torch.allclose(covariance.diagonal(), likelihood.variance(theta), rtol=1e-6, atol=1e-10)


def test_posterior_is_near_the_truth_and_wider_than_without_noise():
    release = release_of(gaussian_records())
    engine = NUTS(num_samples=60, num_warmup=40, max_tree_depth=5)
    law = GaussianRecords(2)
    aware = engine.fit(NoiseAwareModel(release, law), seed=0).posterior
    naive = NoiseAwareModel(release, law, ignore_noise=True, covariance="diagonal")
    ignorant = engine.fit(naive, seed=0).posterior
    truth = torch.tensor([0.5, -0.3], dtype=torch.float64)
    gap = (aware.mean()["location"] - truth).abs() / aware.sd()["location"]
    assert bool((gap < 5).all())
    assert float(aware.sd()["scale"]) > 1.5 * float(ignorant.sd()["scale"])


def test_search_finds_the_two_components_of_a_mixture():
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(RECORDS, 1, generator=generator, dtype=torch.float64)
    x = torch.where(torch.arange(RECORDS)[:, None] % 4 > 0, 1.5 + 0.4 * noise, -1.0 + 0.3 * noise)
    model = NoiseAwareModel(release_of(x), GaussianMixtureRecords(1, 2, scale_median=0.5))
    found = model.records.sites(model._center)
    assert sorted(found["location"].flatten().tolist()) == pytest.approx([-1.0, 1.5], abs=0.2)


@pytest.mark.parametrize(
    ("release", "law"),
    [
        (lambda x: release_of(x, 300), GaussianRecords(2)),
        (lambda x: release_of(x), GaussianRecords(3)),
        (
            lambda x: (
                PrivateDistance(2, bounds=(-5, 5), num_cells=64)
                .update(x)
                .release(PrivacyAccountant(epsilon=1))
            ),
            GaussianRecords(2),
        ),
    ],
)
def test_other_releases_are_refused(release, law):
    with pytest.raises(ConfigurationError):
        NoiseAwareModel(release(gaussian_records()), law)


def test_unknown_covariance_is_refused():
    with pytest.raises(ConfigurationError, match="covariance"):
        NoiseAwareModel(release_of(gaussian_records()), GaussianRecords(2), covariance="low rank")


def test_law_of_a_batch_is_the_dense_law_of_each_and_knows_the_centre():
    x = gaussian_records()
    releases = [release_of(x[:n], 4, center=[1.0, -2.0]) for n in (500, RECORDS)]
    law = GaussianRecords(2)
    theta = torch.tensor([[[0.4, -0.2, -0.3], [0.6, 0.1, 0.2]]], dtype=torch.float64)
    batch = ReleaseLikelihood(releases, law)
    found = batch.law(theta).log_prob(batch.observed)[0]
    for j, release in enumerate(releases):
        one = ReleaseLikelihood(release, law)
        density = torch.distributions.MultivariateNormal(
            one.mean(theta[0, j]), one.full_covariance(theta[0, j])
        )
        assert float(found[j]) == pytest.approx(float(density.log_prob(one.observed)), abs=1e-8)
        angle = x[: release.count] @ one._waves.mT
        gap = one.observed - torch.cat([angle.cos(), angle.sin()], 1).mean(0)
        assert bool((gap.abs() < 6 * one.noise_sd + 1e-3).all())


def test_releases_of_other_waves_and_unknowns_of_another_shape_are_refused():
    x = gaussian_records()
    with pytest.raises(ConfigurationError, match=r"release\[1\]"):
        ReleaseLikelihood([release_of(x, 4), release_of(x, 4, seed=1)], GaussianRecords(2))
    likelihood = ReleaseLikelihood([release_of(x, 4)] * 2, GaussianRecords(2))
    with pytest.raises(ShapeError, match="theta"):
        likelihood.law(torch.zeros(3, dtype=torch.float64))
