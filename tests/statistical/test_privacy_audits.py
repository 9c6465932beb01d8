"""Correct mechanisms are never refuted; planted faults are."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from probkit.errors import ShapeError
from probkit.privacy import Budget, distinguishing_audit, gradient_audit, plan_noise
from probkit.privacy.entropy import TestingEntropy
from probkit.similarity import PrivateDistance, PrivateKDE
from probkit.similarity.auditing import audit_bounds, audit_sketch
from probkit.similarity.classifier import ClassSketch

PURE = Budget("pure", Fraction(1))
ZCDP = Budget("zcdp", Fraction(1, 2))
RUNS = 10_000


def far_apart(relation: str, features: int):
    """A sketch of few waves, two neighbouring data sets, and the pair's distance over its bound."""

    def make() -> PrivateKDE:
        return PrivateKDE(2, bandwidth=1.0, num_features=features, seed=1, relation=relation)

    base = torch.zeros(2, 2, dtype=torch.float64)
    if relation == "add_remove":
        return make, base, torch.cat([base, base[:1]])
    waves = make().design.waves.frequencies
    # solve w x = pi for the first two waves: both cosines turn from 1 to -1
    opposite = torch.linalg.lstsq(waves[:2], torch.full((2, 1), math.pi, dtype=torch.float64))
    other = base.clone()
    other[1] = opposite.solution[:, 0]
    return make, base, other


@pytest.mark.parametrize("budget", [PURE, ZCDP], ids=["pure", "zcdp"])
@pytest.mark.parametrize("relation", ["replace", "add_remove"])
def test_correct_release_is_not_refuted_and_the_audit_is_not_empty(relation, budget):
    make, x, y = far_apart(relation, 2)
    result = audit_sketch(make, x, y, budget, num_runs=RUNS, entropy=TestingEntropy(1))
    claim = {"epsilon" if budget is PURE else "rho": float(budget.amount)}
    assert not result.refutes(**claim)
    found = result.epsilon if budget is PURE else result.rho
    assert found > 0.2 * float(budget.amount)


def weakened(make, budget, factor):
    plan = make().plan(budget)
    return replace(plan, scale=np.floor(plan.scale * factor))


@pytest.mark.parametrize(
    ("relation", "budget", "factor"),
    [
        ("replace", PURE, 0.5),  # halved scale, or the scale of add_remove for replace
        ("add_remove", PURE, 0.4),
        ("replace", ZCDP, 0.5),
        ("replace", ZCDP, math.sqrt(0.5)),  # sqrt(2) sqrt(m) taken for 2 sqrt(m)
    ],
)
def test_too_little_noise_is_caught(relation, budget, factor):
    make, x, y = far_apart(relation, 2)
    noise = weakened(make, budget, factor)
    result = audit_sketch(
        make, x, y, budget, noise=noise, num_runs=3 * RUNS, entropy=TestingEntropy(2)
    )
    claim = {"epsilon" if budget is PURE else "rho": float(budget.amount)}
    assert result.refutes(**claim)


def test_forgotten_change_of_label_is_caught():
    def make() -> ClassSketch:
        return ClassSketch(1, [0, 1], bandwidth=1.0, num_features=1, seed=1)

    x = torch.zeros(3, 1, dtype=torch.float64)
    labels = (torch.tensor([0, 0, 0]), torch.tensor([0, 0, 1]))
    design = make().design
    honest = design.blocks("replace", 1)
    # a forgotten label: counts taken as unchanged in one class, features as add_remove
    forgotten = replace(design.blocks("add_remove", 1), weight=honest.weight)
    for noise, caught in ((None, False), (plan_noise(forgotten, PURE), True)):
        result = audit_sketch(
            make,
            x,
            x,
            PURE,
            labels=labels,
            noise=noise,
            num_runs=3 * RUNS,
            entropy=TestingEntropy(3),
        )
        assert result.refutes(epsilon=1) is caught


def test_mean_with_a_data_dependent_count_is_caught():
    """Releasing sum / n with the noise of sum, n private: two neighbours differ in n too."""
    rng = np.random.default_rng(0)
    scale = 1.0  # sensitivity 1 of the mean times n, epsilon 1
    first = 2 * (1.0 / 1 + rng.laplace(size=RUNS) * scale / 2)
    second = 2 * (-1.0 / 2 + 0.5 + rng.laplace(size=RUNS) * scale / 2) - 1
    scores = [np.abs(v + 1) - np.abs(v - 2) for v in (first, second)]
    assert distinguishing_audit(scores[0], scores[1]).refutes(epsilon=1)


@pytest.mark.parametrize("relation", ["replace", "add_remove"])
def test_bounds_are_attacked_in_vain_and_halved_bounds_are_not(relation):
    def make() -> PrivateDistance:
        return PrivateDistance(2, bounds=(-1.0, 1.0), num_cells=64, relation=relation)

    def draw(generator: torch.Generator) -> torch.Tensor:
        return 2 * torch.randn(2, generator=generator, dtype=torch.float64).sign()

    assert 0.9 < audit_bounds(make, draw) <= 1
    claim = make().design.blocks(relation, 1)
    halved = replace(claim, l1=claim.l1 / 2, l2=claim.l2 / 2)
    assert audit_bounds(make, draw, claim=halved) > 1.5


def test_gradient_ascent_finds_the_worst_pair_of_random_features():
    """sqrt(2) in place of 2, right for the kernel and wrong for the waves, is refuted."""
    waves = torch.randn(20, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def features(x: torch.Tensor) -> torch.Tensor:
        angle = waves @ x
        return torch.cat([angle.cos(), angle.sin()])

    def draw(generator: torch.Generator) -> torch.Tensor:
        return torch.randn(60, generator=generator, dtype=torch.float64)

    def attack(claim: float) -> float:
        return gradient_audit(features, draw, claim, relation="replace", norm=2, restarts=2)

    assert 0.99 < attack(2 * math.sqrt(20)) <= 1 + 1e-6
    assert attack(math.sqrt(2) * math.sqrt(20)) > 1.3


def interpolating_cubic(t: torch.Tensor) -> torch.Tensor:
    """Keys' kernel: weights sum to one, but some are negative, so their L1 norm exceeds one."""
    t = t.abs()
    inner = 1.5 * t**3 - 2.5 * t**2 + 1
    outer = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return torch.where(t < 1, inner, torch.where(t < 2, outer, torch.zeros_like(t)))


def test_interpolating_weights_under_the_bound_of_splines_are_caught():
    knots = torch.arange(-3, 4, dtype=torch.float64)

    def attack(weights) -> float:
        return gradient_audit(
            lambda x: weights(x - knots),
            lambda g: torch.rand(1, generator=g, dtype=torch.float64),
            1.0,
            relation="add_remove",
            norm=1,
            restarts=3,
            steps=50,
        )

    from probkit.similarity.grid_kde import cubic_spline

    assert attack(interpolating_cubic) > 1.2
    assert attack(cubic_spline) <= 1 + 1e-9


def test_audit_needs_scores():
    with pytest.raises(ShapeError):
        distinguishing_audit(np.zeros(10), np.zeros(1000))
