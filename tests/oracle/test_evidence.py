"""Evidence updates against dense algebra: monotone, and with the right fixed points."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from probkit.errors import ConfigurationError, ShapeError
from probkit.infer import evidence

DOUBLE = torch.float64


def problem(dtype, rows=30, weights=12, columns=3):
    """Data with few weights that matter."""
    generator = torch.Generator().manual_seed(4)
    matrix = torch.randn(rows, weights, generator=generator, dtype=dtype)
    true = torch.zeros(columns, weights, dtype=dtype)
    true[:, [1, 5]] = 2 * torch.randn(columns, 2, generator=generator, dtype=dtype)
    noise = 0.3 * torch.randn(columns, rows, generator=generator, dtype=dtype)
    return matrix, true @ matrix.T + noise


def dense_evidence(matrix, y, scale, noise):
    """Log density of all columns under N(0, A S A' + v I), by definition."""
    covariance = (matrix * scale) @ matrix.mH + noise * torch.eye(len(matrix), dtype=matrix.dtype)
    logdet = torch.linalg.slogdet(covariance)[1].real
    quadratic = (y.conj() * torch.linalg.solve(covariance, y.mT).mT).sum().real
    half = 1.0 if matrix.is_complex() else 0.5
    rows, columns = len(matrix), len(y)
    return -half * (columns * (rows * math.log(math.pi / half) + logdet) + quadratic)


def posterior(matrix, y, scale, noise):
    """Mean (columns, weights), variance diagonal, mean |r|^2 and log |Sigma|, by dense algebra."""
    precision = matrix.mH @ matrix / noise + torch.diag(1 / scale).to(matrix.dtype)
    covariance = torch.linalg.inv(precision)
    mean = (covariance @ (matrix.mH @ y.mT) / noise).mT
    residual = (y - mean @ matrix.mT).abs().square().sum(1).mean()
    return mean, covariance.diagonal().real, residual, -torch.linalg.slogdet(precision)[1].real


def run(matrix, y, rule, steps, *, groups=None, learn_noise=True):
    """Scales, noise and the log evidence before every step."""
    weights = matrix.shape[1]
    member = torch.arange(weights) if groups is None else groups
    scale, noise = torch.ones(int(member.max()) + 1, dtype=DOUBLE), torch.tensor(1.0, dtype=DOUBLE)
    path = []
    for _ in range(steps):
        path.append(float(dense_evidence(matrix, y, scale[member], noise)))
        mean, variance, residual, _ = posterior(matrix, y, scale[member], noise)
        moment = evidence.second_moment(mean)
        used = evidence.leverage(scale[member], variance).sum()
        scale = evidence.update_scale(
            *(scale, moment, variance), rule=rule, groups=groups, floor=1e-12
        )
        if learn_noise:
            noise = evidence.update_noise(noise, residual, used, len(matrix), rule=rule)
    return scale, noise, path


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_log_evidence_agrees_with_the_definition(dtype):
    matrix, y = problem(dtype)
    scale, noise = torch.linspace(0.1, 2, 12, dtype=DOUBLE), torch.tensor(0.2, dtype=DOUBLE)
    mean, _, residual, logdet = posterior(matrix, y, scale, noise)
    found = evidence.log_evidence(
        *(residual, noise, len(matrix), evidence.second_moment(mean), scale, logdet),
        num_columns=len(y),
        is_complex=dtype.is_complex,
    )
    assert float(found) == pytest.approx(float(dense_evidence(matrix, y, scale, noise)), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("rule", ["mm", "em"])
@pytest.mark.parametrize("grouped", [False, True])
def test_evidence_never_falls(dtype, rule, grouped):
    matrix, y = problem(dtype)
    groups = torch.arange(12) // 3 if grouped else None
    _, _, path = run(matrix, y, rule, 150, groups=groups)
    falls = [a - b for a, b in pairwise(path)]
    assert max(falls) <= 1e-9 * (1 + abs(path[-1]))
    assert path[-1] > path[0] + 10


def test_mm_is_ahead_of_em_and_mackay_ends_where_mm_does():
    matrix, y = problem(torch.float64)
    paths = {rule: run(matrix, y, rule, 400)[2] for rule in ("mm", "em", "mackay")}
    best = max(path[-1] for path in paths.values())
    assert paths["mm"][-1] == pytest.approx(best, abs=0.01)
    assert paths["mackay"][-1] == pytest.approx(best, abs=0.01)
    needed = {
        rule: next((i for i, value in enumerate(path) if value > best - 0.05), len(path))
        for rule, path in paths.items()
    }
    assert needed["mackay"] <= needed["mm"] < needed["em"] / 2, needed


def test_fixed_points_are_stationary_points_of_the_evidence():
    matrix, y = problem(torch.float64)
    scale, noise, _ = run(matrix, y, "mackay", 400)
    logs = torch.cat([scale, noise[None]]).log().requires_grad_()
    total = dense_evidence(matrix, y, logs[:-1].exp(), logs[-1].exp())
    (gradient,) = torch.autograd.grad(total, logs)
    kept = torch.cat([scale > 1e-6 * scale.max(), torch.ones(1, dtype=torch.bool)])
    assert kept.sum() >= 3
    assert float(gradient[kept].abs().max()) < 1e-4
    for rule in ("mm", "em"):  # and the other rules leave that point where it is
        mean, variance, residual, _ = posterior(matrix, y, scale, noise)
        used = evidence.leverage(scale, variance).sum()
        again = evidence.update_scale(scale, evidence.second_moment(mean), variance, rule=rule)
        assert torch.allclose(again[kept[:-1]], scale[kept[:-1]], rtol=1e-4)
        other = evidence.update_noise(noise, residual, used, len(matrix), rule=rule)
        assert float(other) == pytest.approx(float(noise), rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_kronecker_scales_are_monotone(dtype):
    generator = torch.Generator().manual_seed(2)
    parts = [torch.randn(5, m, generator=generator, dtype=dtype) for m in (4, 6)]
    matrix = torch.kron(*parts)
    y = matrix[:, [3, 8]] @ torch.tensor([1.5, -2.0], dtype=dtype) + 0.1
    y, noise = y[None], torch.tensor(0.05, dtype=DOUBLE)
    factors = [torch.ones(m, dtype=DOUBLE) for m in (4, 6)]
    path = []
    for _ in range(80):
        scale = torch.outer(*factors).flatten()
        path.append(float(dense_evidence(matrix, y, scale, noise)))
        mean, variance, _, _ = posterior(matrix, y, scale, noise)
        moment = evidence.second_moment(mean).reshape(4, 6)
        sensitivity = (evidence.leverage(scale, variance) / scale).reshape(4, 6)
        factors = evidence.update_kronecker_scales(factors, moment, sensitivity, floor=1e-8)
    assert min(b - a for a, b in pairwise(path)) > -1e-6
    assert path[-1] > path[0] + 10


def test_coupled_scales_are_monotone_and_agree_with_groups():
    matrix, y = problem(torch.float64)
    noise = torch.tensor(0.1, dtype=DOUBLE)
    patterns = torch.eye(12, dtype=DOUBLE)
    patterns = patterns + 0.5 * (patterns.roll(1, 0) + patterns.roll(-1, 0))
    weights, path = torch.ones(12, dtype=DOUBLE), []
    for _ in range(60):
        scale = patterns @ weights
        path.append(float(dense_evidence(matrix, y, scale, noise)))
        mean, variance, _, _ = posterior(matrix, y, scale, noise)
        sensitivity = evidence.leverage(scale, variance) / scale
        weights = evidence.update_coupled_scale(
            weights, patterns, evidence.second_moment(mean), sensitivity
        )
    assert min(b - a for a, b in pairwise(path)) > -1e-9 * abs(path[-1])
    groups = torch.arange(12) // 3
    members = torch.nn.functional.one_hot(groups).to(DOUBLE)
    scale = torch.linspace(0.5, 2, 4, dtype=DOUBLE)
    mean, variance, _, _ = posterior(matrix, y, scale[groups], noise)
    moment = evidence.second_moment(mean)
    sensitivity = evidence.leverage(scale[groups], variance) / scale[groups]
    one = evidence.update_scale(scale, moment, variance, groups=groups)
    other = evidence.update_coupled_scale(scale, members, moment, sensitivity)
    assert torch.allclose(one, other, rtol=1e-12)


def test_weights_without_data_or_scale_stay_where_they_are():
    scale = torch.tensor([2.0, 0.0, 1.0], dtype=DOUBLE)
    variance = torch.tensor([2.0, 0.0, 0.5], dtype=DOUBLE)
    moment = torch.tensor([0.0, 0.0, 1.0], dtype=DOUBLE)
    new = evidence.update_scale(scale, moment, variance)
    assert new.tolist() == [2.0, 0.0, pytest.approx(2**0.5)]
    noise = torch.tensor(1.0, dtype=DOUBLE)
    assert float(evidence.update_noise(noise, 0 * noise, noise, 5, floor=0.01)) == 0.01


def test_bad_arguments_are_refused():
    one = torch.ones(3, dtype=DOUBLE)
    with pytest.raises(ConfigurationError, match="Unknown update"):
        evidence.update_scale(one, one, one, rule="newton")
    with pytest.raises(ShapeError, match="Every weight"):
        evidence.update_scale(one, one[:2], one)
    with pytest.raises(ShapeError, match="grid of the factors"):
        evidence.update_kronecker_scales([one, one], torch.ones(3, 2), torch.ones(3, 2))
