"""Sketches against brute force, their claimed sensitivities, and the error that they predict."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction

import pytest
import torch

from probkit.errors import ConfigurationError
from probkit.privacy import Budget, NotPrivateWarning, PrivacyAccountant
from probkit.similarity import CompletelyMonotone, PrivateDistance, PrivateKDE, Release
from probkit.similarity.exponential_sums import exponential_terms
from probkit.similarity.spectral_laws import law_of, similarity
from tests.similarity_cases import CASES, ball, box, without_noise

RELATIONS = ("replace", "add_remove")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("name", CASES)
def test_without_noise_it_answers_like_brute_force(name, relation):
    case = CASES[name]
    g = generator()
    x, y = case.draw(300, g), case.draw(20, g)
    sketch = case.make(relation=relation).update(x[:100]).update(x[100:].to(torch.float32))
    answer = without_noise(sketch).query(y).value
    assert float((answer - case.exact(x, y)).abs().max()) / 300 < case.tolerance


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("name", CASES)
def test_no_pair_of_records_moves_the_statistic_further_than_claimed(name, relation):
    """Random pairs, opposite corners and points far outside, block by block."""
    case = CASES[name]
    sketch = case.make(relation=relation)
    design, g = sketch.design, generator(1)
    x = torch.cat([case.draw(30, g), 1e6 * case.draw(5, g), case.draw(5, g).sign() * 3])
    x = torch.cat([x, -x])
    x[-1] = 0

    def statistic(row):
        return design.statistic(design.contributions(row[None], None), 1, relation)

    size = torch.from_numpy(design.blocks(relation, 1).size)
    claim = design.blocks(relation, 1)
    worst = torch.zeros(2, len(size), dtype=torch.float64)
    for i in range(len(x)):
        if relation == "replace":
            moved = statistic(x[i]) - statistic(x[(7 * i + 40) % len(x)])
        else:
            moved = statistic(x[i])
        parts = moved.to(torch.float64).split(size.tolist())
        for k, part in enumerate(parts):
            worst[0, k] = max(worst[0, k], part.abs().sum())
            worst[1, k] = max(worst[1, k], torch.linalg.vector_norm(part))
    assert bool((worst[0] <= torch.from_numpy(claim.l1)).all())
    assert bool((worst[1] <= torch.from_numpy(claim.l2)).all())
    # and the claim is of the right size: some pair comes close
    l1, l2 = torch.from_numpy(claim.l1), torch.from_numpy(claim.l2)
    assert float((worst[0] / l1).max()) > 0.5
    assert float((worst[1] / l2).max()) > 0.5


@pytest.mark.parametrize(
    "name", ["l1", "l2sq", "grid 2d", "gaussian", "l2", "consistent tree", "jl", "exponentials"]
)
def test_a_record_contributes_the_same_whatever_its_company(name):
    case = CASES[name]
    x = case.draw(1500, generator(2))
    design = case.make().design
    order = torch.randperm(len(x), generator=generator(3))
    whole = case.make().update(x)
    assert torch.equal(whole.state, case.make().update(x[order]).state)
    single = sum(design.contributions(row[None], None) for row in x[:50])
    assert torch.equal(single, case.make().update(x[:50]).state)


@pytest.mark.parametrize("kind", ["pure", "zcdp"])
@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize(
    "name", ["l1", "lp 1.5", "l2sq", "grid 2d", "gaussian", "consistent tree", "exponentials"]
)
def test_predicted_error_is_the_error(name, relation, kind):
    case = CASES[name]
    g = generator(4)
    x = case.draw(200, g)
    y = x.mean(0, keepdim=True).repeat(4, 1) if name == "consistent tree" else case.draw(40, g)
    budget = {"epsilon": 2.0} if kind == "pure" else {"rho": 0.5}
    exact = without_noise(case.make(relation=relation).update(x)).query(y).value
    errors = []
    for seed in range(40):
        sketch = case.make(relation=relation).update(x)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of noise that is seeded, and large for 200 records
            release = sketch.release(
                PrivacyAccountant(**budget, relation=relation), testing_seed=seed
            )
        answer = release.query(y, normalize=False)
        errors.append((answer.value - exact) / answer.noise_sd)
    ratio = torch.stack(errors).square().mean().sqrt()
    assert 0.75 < float(ratio) < 1.25


def test_completely_monotone_function_is_the_named_kernel():
    x, y = box(3)(200, generator(5)), box(3)(10, generator(6))
    mixture = CompletelyMonotone("l2sq", lambda u: -torch.log1p(-u))
    sketch = PrivateKDE(3, mixture, bandwidth=0.5, num_features=20_000).update(x)
    exact = CASES["cauchy"].exact(x, y)
    assert float((without_noise(sketch).query(y).value - exact).abs().max()) / 200 < 0.02


@pytest.mark.parametrize("kernel", ["gaussian", "exponential", "laplacian", "cauchy", "inverse"])
def test_one_release_answers_for_every_bandwidth(kernel):
    x, y = box(2)(200, generator(7)), box(2)(10, generator(8))
    sketch = PrivateKDE(2, kernel, bandwidth=[0.5, 1.0, 2.0], num_features=20_000).update(x)
    decoder = without_noise(sketch)
    from probkit.similarity.spectral_laws import similarity

    for h in (0.5, 0.7, 2.0):
        exact = similarity(kernel, x, y, h).mean(-1)
        assert float((decoder.query(y, bandwidth=h).value / 200 - exact).abs().max()) < 0.03


def test_waves_of_a_seed_are_the_same_and_of_another_are_not():
    first, again, other = (law_of("gaussian", dim=3, num=5, seed=seed).waves for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_distances_extend_beyond_the_domain_and_say_so():
    x = box(2)(100, generator(9))
    y = torch.tensor([[5.0, 0.0], [0.5, 0.5]], dtype=torch.float64)
    sketch = PrivateDistance(2, bounds=(-1.0, 2.0)).update(x)
    answer = without_noise(sketch).query(y)
    exact = CASES["l1"].exact(x, y)
    assert torch.allclose(answer.value, exact, atol=0.1)
    assert answer.extrapolated.tolist() == [True, False]


def test_bounds_may_differ_from_coordinate_to_coordinate():
    x = torch.cat([box(1)(100, generator(10)), 100 * box(1)(100, generator(11))], 1)
    sketch = PrivateDistance(2, bounds=[(-1, 2), (-100, 200)]).update(x)
    y = x[:5]
    assert torch.allclose(without_noise(sketch).query(y).value, CASES["l1"].exact(x, y), atol=10)
    release_sd = [
        PrivateDistance(2, bounds=b).predicted_sd(PrivacyAccountant(rho=1.0).reserve("x").budget)
        for b in ([(-1, 2), (-100, 200)], [(-100, 200), (-100, 200)])
    ]
    assert release_sd[0] < 0.6 * release_sd[1]


def test_interval_covers_noise_and_waves():
    """95 % intervals of random-wave answers over 60 seeds."""
    x, y = ball(3)(500, generator(12)), ball(3)(20, generator(13))
    exact = CASES["gaussian"].exact(x, y) / 500
    inside = []
    for seed in range(60):
        sketch = PrivateKDE(3, bandwidth=0.5, num_features=300, seed=seed).update(x)
        with pytest.warns(NotPrivateWarning):
            release = sketch.release(PrivacyAccountant(rho=0.01), testing_seed=seed)
        low, high = release.query(y).interval(0.95)
        inside.append((low <= exact) & (exact <= high))
    assert 0.91 <= float(torch.stack(inside).double().mean()) <= 0.98


@pytest.mark.parametrize("width", [1.0, 0.99, 0.981, 1.05])
def test_noise_of_a_grid_is_even_whatever_part_of_a_cell_its_domain_ends_in(width):
    sketch = PrivateKDE(1, bandwidth=0.2, method="grid", bounds=(0, width))
    variance = sketch.plan(Budget("pure", Fraction(1))).variance()
    decoder = sketch.design.decoder(torch.zeros_like(variance), variance, 1)
    points = torch.linspace(0, width, 50, dtype=torch.float64)[:, None]
    noise = decoder.query(points).noise_sd
    assert float(noise.max()) < 3 * float(noise.median())


def structured(seed=0, dim=60, num_features=3000, **settings):
    return PrivateKDE(
        dim,
        bandwidth=1.0,
        num_features=num_features,
        projection="structured",
        seed=seed,
        **settings,
    )


@pytest.mark.parametrize("kernel", ["gaussian", "exponential", "cauchy", "inverse"])
def test_structured_waves_answer_like_brute_force(kernel):
    g = generator()
    x = 0.15 * torch.randn(300, 60, generator=g, dtype=torch.float64)
    y = 0.15 * torch.randn(20, 60, generator=g, dtype=torch.float64)
    sketch = structured(kernel=kernel).update(x[:100]).update(x[100:])
    means = without_noise(sketch).query(y).value / 300
    assert torch.allclose(means, similarity(kernel, x, y).mean(-1), atol=0.03)


@pytest.mark.parametrize("num_features", [1, 20, 32, 64, 130])  # whole and parts of blocks of 64
def test_structured_waves_are_whole_number_functions_of_a_record(num_features):
    sketch = structured(num_features=num_features)
    waves, g = sketch.design.waves, generator(1)
    x = torch.randn(50, 60, generator=g, dtype=torch.float64)
    # the dense frequencies at the same rounded records, in real numbers
    quanta = torch.floor(x / waves.quantum + 0.5) * waves.quantum
    angle = quanta @ waves.frequencies.mT
    cosine, sine = waves.pairs(x)
    assert torch.allclose(cosine.double() / 2**20, angle.cos(), atol=3e-4)
    assert torch.allclose(sine.double() / 2**20, angle.sin(), atol=3e-4)
    assert torch.equal(waves.sums(x), torch.stack([cosine.sum(0), sine.sum(0)], -1))
    assert torch.equal(waves.pairs(x[7:8])[0], cosine[7:8])
    assert torch.allclose(waves.real_pairs(quanta)[0], angle.cos(), atol=1e-9)


def test_structured_waves_keep_the_claimed_bounds_and_survive_a_file(tmp_path):
    sketch = structured(num_features=200)
    x = 50 * torch.randn(100, 60, generator=generator(2), dtype=torch.float64)
    cosine, sine = (part.double() for part in sketch.design.waves.pairs(x))
    blocks = sketch.design.blocks("add_remove", 1)
    moved = torch.cat([cosine, sine], 1)
    assert float(torch.linalg.vector_norm(moved, dim=1).max()) <= blocks.l2[1]
    assert float(moved.abs().sum(1).max()) <= blocks.l1[1]
    release = sketch.update(x).release(PrivacyAccountant(epsilon=5, delta=1e-6))
    loaded = Release.load(release.save(tmp_path / "release"))
    assert torch.equal(loaded.query(x[:5]).value, release.query(x[:5]).value)


@pytest.mark.parametrize("bad", [{"kernel": "laplacian"}, {"bandwidth": [1.0, 2.0]}])
def test_structured_waves_are_for_one_bandwidth_of_a_radial_kernel(bad):
    settings = {"bandwidth": 1.0, "projection": "structured", **bad}
    with pytest.raises(ConfigurationError, match="projection"):
        PrivateKDE(64, **settings)


def test_reduced_waves_answer_for_the_reduced_records():
    """Brute force on A x / sqrt(k) for the public signs A, and on x with more dimensions kept."""
    g = generator(5)
    x, y = (0.5 * torch.randn(n, 100, generator=g, dtype=torch.float64) for n in (200, 20))
    errors = []
    for k in (5, 80):
        sketch = PrivateKDE(
            100, bandwidth=5.0, num_features=8000, projection="jl", reduced_dim=k, seed=1
        ).update(x)
        found = without_noise(sketch).query(y).value / 200
        signs = torch.randint(0, 2, (k, 100), generator=generator(1)) * 2.0 - 1
        short = [part @ signs.double().mT / math.sqrt(k) for part in (x, y)]
        near = similarity("gaussian", *short, 5.0).mean(-1)
        assert torch.allclose(found, near, atol=0.02)
        exact = similarity("gaussian", x, y, 5.0).mean(-1)
        errors.append(float((found - exact).abs().mean()))
        waves = sketch.design.waves
        assert torch.allclose(waves.real_pairs(x)[0], (x @ waves.frequencies.mT).cos())
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize("accuracy", [0.1, 0.01, 1e-4])
def test_exponentials_are_as_near_as_asked_beyond_the_points_they_were_fitted_at(accuracy):
    c, t = exponential_terms(accuracy)
    x = torch.cat([torch.rand(4000, generator=generator(), dtype=torch.float64) * 50 + 1])
    x = torch.cat([x, torch.logspace(0, 9, 1000, dtype=torch.float64)])
    error = ((c * torch.exp(-t * x[:, None])).sum(1) - 1 / x).abs().max()
    assert 0.2 * accuracy < float(error) <= 1.02 * accuracy
    assert len(c) <= (math.log10(1 / accuracy) + 1) ** 2
    assert bool((c * torch.exp(-t) <= 1).all())


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"projection": "jl"}, "reduced_dim"),
        ({"reduced_dim": 3}, "reduced_dim"),
        ({"projection": "jl", "reduced_dim": 65}, "reduced_dim"),
        ({"kernel": "laplacian", "projection": "jl", "reduced_dim": 3}, "projection"),
        ({"method": "exponentials"}, "kernel"),
        ({"kernel": "inverse", "method": "exponentials", "accuracy": 0.0}, "accuracy"),
        ({"kernel": "inverse", "method": "exponentials", "accuracy": 1e-14}, "accuracy"),
        ({"kernel": "inverse", "method": "exponentials", "bandwidth": [1, 2]}, "bandwidth"),
    ],
)
def test_reductions_and_sums_say_what_they_need(settings, where):
    with pytest.raises(ConfigurationError, match=where):
        PrivateKDE(64, **{"bandwidth": 1.0, **settings})
