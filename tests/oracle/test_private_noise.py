"""Exact samplers and noise plans: distributions, losses, the OpenDP oracle."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.stats import chi2, ks_2samp

from probkit.errors import ConfigurationError
from probkit.privacy import Blocks, Budget, discrete_gaussian, discrete_laplace, plan_noise
from probkit.privacy.continuous import knorm_noise
from probkit.privacy.entropy import OSEntropy, TestingEntropy, below, bernoulli_exp

NUM = 100_000


def probabilities(sampler, scale: int, reach: int) -> np.ndarray:
    z = np.arange(-reach, reach + 1)
    log_p = -np.abs(z) / scale if sampler is discrete_laplace else -(z**2) / (2 * scale**2)
    p = np.exp(log_p)
    return p / p.sum()


@pytest.mark.parametrize("scale", [1, 3, 10])
@pytest.mark.parametrize("sampler", [discrete_laplace, discrete_gaussian])
def test_sampler_has_the_exact_distribution(sampler, scale):
    reach = 60 * scale
    z = sampler(scale, NUM, TestingEntropy(scale))
    assert np.abs(z).max() <= reach
    expected = probabilities(sampler, scale, reach) * NUM
    counts = np.bincount(z + reach, minlength=2 * reach + 1)
    usual = expected > 10
    statistic = ((counts - expected)[usual] ** 2 / expected[usual]).sum()
    assert chi2.sf(statistic, usual.sum() - 1) > 1e-4


@pytest.mark.parametrize("sampler", [discrete_laplace, discrete_gaussian])
def test_scales_may_differ_from_draw_to_draw(sampler):
    scales = np.tile([2, 2**24], NUM // 2)
    z = sampler(scales, NUM, TestingEntropy(5))
    spread = np.sqrt(2) if sampler is discrete_laplace else 1.0
    assert z[1::2].std() / 2**24 == pytest.approx(spread, rel=0.02)
    p = probabilities(sampler, 2, 200)
    assert z[::2].std() == pytest.approx(np.sqrt((p * np.arange(-200, 201) ** 2).sum()), rel=0.02)


@pytest.mark.parametrize("sampler", [discrete_laplace, discrete_gaussian])
@pytest.mark.parametrize("scale", [0, -3, 2**40 + 1, 2.5, True])
def test_scale_out_of_range_is_refused(sampler, scale):
    with pytest.raises(ConfigurationError, match="scale"):
        sampler(scale, 10)


@pytest.mark.parametrize("x", [(1, 3), (1, 1), (7, 2), (0, 5)])
def test_coin_of_an_exponential_probability(x):
    ones = np.ones(NUM, dtype=np.uint64)
    heads = bernoulli_exp(np.uint64(x[0]) * ones, np.uint64(x[1]) * ones, TestingEntropy(1))
    p = np.exp(-x[0] / x[1])
    assert heads.mean() == pytest.approx(p, abs=5 * np.sqrt(p * (1 - p) / NUM) + 1e-12)


def test_uniform_integers_cover_their_range_evenly():
    limit = np.full(NUM, 6, dtype=np.uint64)
    counts = np.bincount(below(limit, TestingEntropy(2)).astype(int), minlength=6)
    assert len(counts) == 6
    assert chi2.sf(((counts - NUM / 6) ** 2 / (NUM / 6)).sum(), 5) > 1e-4


def test_operating_system_noise_is_fresh_and_marked_private():
    assert OSEntropy().private and not TestingEntropy(0).private
    assert not np.array_equal(discrete_laplace(1000, 50), discrete_laplace(1000, 50))


@pytest.mark.parametrize("kind", ["laplace", "gaussian"])
def test_opendp_draws_have_our_distribution(kind):
    pytest.importorskip("opendp")
    from probkit.privacy.opendp_noise import opendp_noise

    theirs = opendp_noise(kind, np.full(4000, 5000))
    sampler = discrete_laplace if kind == "laplace" else discrete_gaussian
    assert ks_2samp(theirs, sampler(5000, 40_000, TestingEntropy(3))).pvalue > 1e-4


def blocks(reach: float) -> Blocks:
    size = np.array([1, 2, 40])
    return Blocks(
        size, reach * np.array([1.0, 3, 9]), reach * np.sqrt(size), np.array([9.0, 1, 0.1])
    )


@pytest.mark.parametrize("reach", [1.0, 2.0**20, 2.0**36])
@pytest.mark.parametrize("amount", [Fraction(1, 1000), Fraction(1), Fraction(30)])
@pytest.mark.parametrize("kind", ["pure", "zcdp"])
def test_planned_loss_is_below_the_budget_and_close_to_it(kind, amount, reach):
    plan = plan_noise(blocks(reach), Budget(kind, amount))
    loss = exact_loss(plan, blocks(reach))
    assert loss <= amount
    if reach > 1:  # whole scales are coarse when a record moves the statistic by one unit
        assert loss >= amount * Fraction(999, 1000)


def exact_loss(plan, moved: Blocks) -> Fraction:
    """The loss in exact arithmetic: rounding down to 2^shift moves a difference by below 1."""
    total = Fraction(0)
    for b, scale in enumerate(plan.scale):
        unit = 2 ** int(plan.shift[b])
        size = int(moved.size[b]) if unit > 1 else 0
        if plan.kind == "laplace":
            total += (Fraction(moved.l1[b]) / unit + size) / Fraction(scale)
        else:
            moved_by = Fraction(moved.l2[b]) / unit + Fraction(np.sqrt(size))
            total += moved_by**2 / (2 * Fraction(scale) ** 2)
    return total


def test_plan_minimises_the_error():
    """Perturbing the scales at equal loss never helps."""
    moved = blocks(2.0**36)
    for kind in ("pure", "zcdp"):
        plan = plan_noise(moved, Budget(kind, Fraction(1)))
        scale = plan.scale * 2.0**plan.shift
        cost = moved.size * moved.weight

        def error(t, cost=cost):
            return float((cost * t**2).sum())

        def rescaled(t, kind=kind):
            if kind == "pure":
                return t * (moved.l1 / t).sum()
            return t * np.sqrt((moved.l2**2 / (2 * t**2)).sum())

        best = error(rescaled(scale))
        rng = np.random.default_rng(0)
        for _ in range(50):
            other = rescaled(scale * np.exp(0.2 * rng.standard_normal(3)))
            assert error(other) >= best * (1 - 1e-9)


@pytest.mark.parametrize("kind", ["pure", "zcdp"])
def test_noise_has_the_variance_it_states(kind):
    plan = plan_noise(blocks(2.0**36), Budget(kind, Fraction(1, 10)))
    zero = torch.zeros(43, dtype=torch.int64)
    entropy = TestingEntropy(4)
    draws = torch.stack([plan.decode(plan.apply(zero, entropy)) for _ in range(600)])
    ratio = draws.square().mean(0) / plan.variance()
    assert bool(((ratio > 0.6) & (ratio < 1.5)).all())
    assert float(ratio[3:].mean()) == pytest.approx(1, rel=0.03)


def test_continuous_noise_has_the_variance_it_states_and_is_for_pure_budgets():
    plan = plan_noise(blocks(2.0**20), Budget("pure", Fraction(1)), continuous=True)
    assert plan.loss(blocks(2.0**20)) <= 1
    zero, entropy = torch.zeros(43, dtype=torch.int64), TestingEntropy(4)
    draws = torch.stack([knorm_noise(zero, plan, entropy) for _ in range(3000)])
    ratio = draws.square().mean(0) / plan.variance()
    assert float(ratio[3:].mean()) == pytest.approx(1, rel=0.03)
    assert float(ratio[1:3].mean()) == pytest.approx(1, rel=0.1)
    with pytest.raises(ConfigurationError, match="insecure_float_noise"):
        plan_noise(blocks(1.0), Budget("zcdp", Fraction(1)), continuous=True)


def test_a_budget_beyond_exact_noise_is_refused():
    with pytest.raises(ConfigurationError, match="budget"):
        plan_noise(blocks(2.0**36), Budget("pure", Fraction(1, 10**12)))
