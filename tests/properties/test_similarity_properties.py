"""Private releases: what the order, the parts, the units and the dtype of records may change."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from probkit.privacy import PrivacyAccountant
from probkit.similarity import ClassSketch, PrivateDistance, PrivateGPRegression, PrivateKDE
from tests.properties.examples import normal, tried, uniform
from tests.similarity_cases import without_noise

seeds = st.integers(0, 2**20)
BOX = {"bounds": (0.0, 1.0)}
SKETCHES = {
    "l1": lambda: PrivateDistance(2, **BOX, num_cells=16),
    "tree": lambda: PrivateDistance(2, method="tree", **BOX, height=4, consistent=True),
    "l2": lambda: PrivateDistance(2, "l2", radius=2.0, num_directions=8, num_cells=8),
    "l2sq": lambda: PrivateDistance(2, "l2sq", radius=2.0),
    "grid": lambda: PrivateKDE(2, bandwidth=0.5, method="grid", **BOX),
    "features": lambda: PrivateKDE(2, "cauchy", bandwidth=0.5, num_features=16),
}


def released(sketch, records=None, labels=None, seed=5):
    if records is not None:
        sketch.update(records, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # seeded noise and small n: on purpose
        return sketch.release(PrivacyAccountant(epsilon=1.0), testing_seed=seed)


@pytest.mark.parametrize("name", SKETCHES)
@tried(2)
@given(seed=seeds, num=st.integers(2, 60))
def test_order_and_parts_of_the_records_do_not_matter(name, seed, num):
    make = SKETCHES[name]
    records = uniform(num, 2, seed=seed)
    order = torch.randperm(num, generator=torch.Generator().manual_seed(seed))
    whole, parts = make(), make()
    for piece in records[order].split(max(num // 3, 1)):
        parts.merge(make().update(piece))
    first, second = released(whole, records), released(parts)
    assert torch.equal(first.values, second.values)
    points = uniform(5, 2, seed=1)
    assert torch.equal(first.query(points).value, second.query(points).value)


@pytest.mark.parametrize("name", SKETCHES)
@tried(2)
@given(seed=seeds)
def test_records_twice_are_twice_the_sum(name, seed):
    make = SKETCHES[name]
    records = uniform(20, 2, seed=seed)
    points = uniform(5, 2, seed=seed + 1)
    once, twice = (without_noise(make().update(r)) for r in (records, torch.cat([records] * 2)))
    expected = 2 * once.query(points).value
    torch.testing.assert_close(twice.query(points).value, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", SKETCHES)
@tried(2)
@given(seed=seeds)
def test_float32_records_are_their_float64_copies(name, seed):
    make = SKETCHES[name]
    records = uniform(20, 2, seed=seed).float()
    assert torch.equal(make().update(records).state, make().update(records.double()).state)


@tried(4)
@given(seed=seeds, scale=st.sampled_from([0.25, 2.0, 1024.0]), shift=st.integers(-8, 8))
def test_units_of_a_distance(seed, scale, shift):
    """In other units (powers of 2: without rounding) sums of distances and their errors scale."""
    records, points = uniform(30, 2, seed=seed), uniform(6, 2, seed=seed + 1)
    plain = released(PrivateDistance(2, bounds=(0.0, 1.0), num_cells=32), records)
    bounds = (scale * shift, scale * (shift + 1))
    moved = released(PrivateDistance(2, bounds=bounds, num_cells=32), scale * (records + shift))
    a, b = plain.query(points), moved.query(scale * (points + shift))
    torch.testing.assert_close(b.value / scale, a.value, rtol=1e-9, atol=1e-6)
    torch.testing.assert_close(b.sd / scale, a.sd, rtol=1e-9, atol=1e-9)


@tried(4)
@given(seed=seeds, scale=st.sampled_from([0.5, 4.0]))
def test_units_of_a_kernel(seed, scale):
    records, points = normal(30, 2, seed=seed), normal(6, 2, seed=seed + 1)
    settings = {"num_features": 16, "seed": 3}
    plain = released(PrivateKDE(2, bandwidth=0.5, **settings), records)
    moved = released(PrivateKDE(2, bandwidth=0.5 * scale, **settings), scale * records)
    a, b = plain.query(points), moved.query(scale * points)
    torch.testing.assert_close(b.value, a.value, rtol=1e-9, atol=1e-9)


@tried(4)
@given(seed=seeds, num_classes=st.integers(2, 4))
def test_names_and_order_of_classes(seed, num_classes):
    """Classes in another order: the answers of the exact statistic move with them."""
    x = normal(40, 2, seed=seed)
    labels = torch.arange(40) % num_classes
    order = torch.randperm(num_classes, generator=torch.Generator().manual_seed(seed)).tolist()
    settings = {"bandwidth": 0.7, "num_features": 16}
    plain = without_noise(ClassSketch(2, list(range(num_classes)), **settings).update(x, labels))
    turned = without_noise(ClassSketch(2, order, **settings).update(x, labels))
    points = normal(5, 2, seed=1)
    torch.testing.assert_close(turned.query(points).value, plain.query(points).value[:, order])


@tried(4)
@given(seed=seeds)
def test_private_regression_ignores_the_order(seed):
    x = normal(60, 2, seed=seed)
    y = torch.tanh(x[:, 0])
    order = torch.randperm(60, generator=torch.Generator().manual_seed(seed))

    def fitted(x, y):
        return released(
            PrivateGPRegression(2, bandwidth=1.0, target_bound=1.0, num_features=6), x, y
        )

    first, second = fitted(x, y), fitted(x[order], y[order])
    assert torch.equal(first.values, second.values)
    points = normal(4, 2, seed=1)
    assert torch.equal(first.query(points).value, second.query(points).value)
