"""Special functions, weights, tables and exact steps against quadrature and dense algebra."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from scipy.integrate import quad

from probkit.errors import ConfigurationError, NumericalError
from probkit.special import incomplete_gamma
from probkit.statespace.fractional import MarkovApproxFBM, exact_step
from probkit.statespace.fractional_l2 import geometric_rates, l2_system, l2_weights
from probkit.statespace.fractional_noise import fbm_covariance, fgn_autocovariance, sample_fgn
from probkit.statespace.fractional_tables import law_weights, mvn_variance

F64 = torch.float64


def toeplitz(row):
    index = torch.arange(len(row))
    return row[(index[:, None] - index).abs()]


def divergence(true, approximate):
    left, right = torch.linalg.cholesky(true), torch.linalg.cholesky(approximate)
    ratio = torch.linalg.solve_triangular(right, left, upper=False)
    logs = right.diagonal().log().sum() - left.diagonal().log().sum()
    return float(0.5 * (ratio.square().sum() - len(true)) + logs)


@pytest.mark.parametrize("a", [0.05, 0.6, 1.3, 2.5])
@pytest.mark.parametrize("x", [1e-6, 0.3, 1.9999, 2.0001, 30.0, 1e4, 1e7])
def test_incomplete_gamma_against_thirty_digits(a, x):
    with mpmath.workdps(30):
        lower = mpmath.gammainc(a, 0, x, regularized=True)
        upper = mpmath.gammainc(a, x, regularized=True) * mpmath.exp(x)
    found = incomplete_gamma(torch.tensor(a, dtype=F64), torch.tensor(x, dtype=F64))
    assert float(found[0]) == pytest.approx(float(lower), rel=1e-12)
    assert float(found[1]) == pytest.approx(float(upper), rel=1e-12)


@pytest.mark.parametrize("x", [0.4, 3.0, 50.0])
def test_incomplete_gamma_has_a_derivative_in_its_order(x):
    def upper(a):
        return incomplete_gamma(a, torch.tensor(x, dtype=F64))[1]

    with mpmath.workdps(30):
        expected = mpmath.exp(x) * mpmath.diff(
            lambda a: mpmath.gammainc(a, x, regularized=True), 0.8
        )
    found = torch.func.grad(upper)(torch.tensor(0.8, dtype=F64))
    assert float(found) == pytest.approx(float(expected), rel=1e-9)


def test_weights_have_finite_derivatives_at_extreme_rates():
    hurst = torch.tensor([0.2, 0.7], dtype=F64)
    rates = torch.tensor([1e-2, 1.0, 1e6], dtype=F64)

    def total(h):
        return l2_weights(h, rates, 1.0).weights.sum()

    one_by_one = torch.stack([torch.func.jacrev(total)(h) for h in hurst])
    assert bool(one_by_one.isfinite().all())


@pytest.mark.parametrize(("hurst", "rate"), [(0.3, 1.0), (0.7, 0.5)])
def test_type_two_moments_against_quadrature(hurst, rate):
    horizon, alpha = 2.0, hurst + 0.5

    def covariance(t):  # E[B(t) Y(t)]: both are integrals over the noise since 0
        # u^alpha as the variable takes the singularity of the kernel away
        def kernel(v):
            return math.exp(-rate * v ** (1 / alpha)) / alpha

        return quad(kernel, 0, t**alpha, epsabs=1e-13)[0] / math.gamma(alpha)

    expected = quad(covariance, 0, horizon, epsabs=1e-11)[0]
    rates = torch.tensor([rate], dtype=F64)
    A, b, c = l2_system(torch.tensor(hurst, dtype=F64), rates, horizon, "II")
    assert float(b[0]) == pytest.approx(expected, rel=1e-8)
    variance = quad(lambda t: -math.expm1(-2 * rate * t) / (2 * rate), 0, horizon)[0]
    assert float(A[0, 0]) == pytest.approx(variance, rel=1e-8)
    power = quad(lambda t: t ** (2 * hurst) / (2 * hurst * math.gamma(alpha) ** 2), 0, horizon)[0]
    assert float(c) == pytest.approx(power, rel=1e-8)


@pytest.mark.parametrize("kind", ["I", "II"])
def test_error_report_is_the_error(kind):
    hurst = torch.tensor([0.2, 0.5, 0.8], dtype=F64)
    rates = geometric_rates(5, 0.05, 20.0)
    found = l2_weights(hurst, rates, 6.0, kind=kind)
    _, b, c = l2_system(hurst, rates, 6.0, kind)
    assert bool(((found.relative_error > 0) & (found.relative_error < 1)).all())
    direct = 1 - (b * found.weights).sum(-1) / c
    torch.testing.assert_close(found.relative_error, direct, rtol=0, atol=1e-8)


@pytest.mark.parametrize("hurst", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_tables_have_the_law_of_the_increments(hurst):
    size = 400
    process = MarkovApproxFBM(hurst, num_steps=size)
    approximate = toeplitz(process.increment_covariance(size))
    assert divergence(toeplitz(fgn_autocovariance(hurst, size)), approximate) / size <= 1e-5


def test_table_is_smooth_in_the_hurst_index():
    hurst = torch.tensor(0.37, dtype=F64)
    slope = torch.func.jacfwd(lambda h: law_weights_of(h))(hurst)
    step = 1e-6
    difference = (law_weights_of(hurst + step) - law_weights_of(hurst - step)) / (2 * step)
    torch.testing.assert_close(slope, difference, rtol=1e-6, atol=1e-7)


def law_weights_of(hurst):
    from probkit.statespace.fractional_tables import law_weights_unchecked

    return law_weights_unchecked(hurst, 1000)[1]


@pytest.mark.parametrize("normalize", ["unit", "mvn"])
@pytest.mark.parametrize("hurst", [0.05, 0.3, 0.6, 0.9])
def test_normalisation_of_increments(normalize, hurst):
    dt = 0.02
    process = MarkovApproxFBM(hurst, num_steps=1000, dt=dt, normalize=normalize)
    scale = 1.0 if normalize == "unit" else float(mvn_variance(torch.tensor(hurst, dtype=F64)))
    found = float(process.increment_covariance(1)[0])
    assert found == pytest.approx(scale * dt ** (2 * hurst), rel=0.01)


@pytest.mark.parametrize("kind", ["I", "II"])
def test_covariance_and_samples_agree(kind):
    process = MarkovApproxFBM(0.3, num_steps=64, dt=0.1, kind=kind, weights="l2")
    times = torch.tensor([0.1, 0.5, 0.6, 2.0, 6.4], dtype=F64)
    exact = process.covariance(times)
    torch.testing.assert_close(exact.diagonal(), process.variance(times))
    paths, _ = process.sample(times, 40_000, seed=1)
    spread = exact.diagonal()
    error = (exact.square() + spread[:, None] * spread) / len(paths)
    assert bool(((paths.mT @ paths / len(paths) - exact).abs() <= 5 * error.sqrt()).all())


def test_one_step_is_ten_small_steps():
    rates = geometric_rates(8, 1e-3, 1e4)
    decay, noise = exact_step(rates, 1.0)
    small_decay, small_noise = exact_step(rates, 0.1)
    total = torch.zeros_like(noise)
    for _ in range(10):
        total = total * small_decay[:, None] * small_decay + small_noise
    torch.testing.assert_close(total, noise, rtol=0, atol=1e-10)
    torch.testing.assert_close(small_decay**10, decay, rtol=0, atol=1e-12)


def test_exact_noise_has_its_covariance():
    paths = sample_fgn(0.8, 6, 60_000, dt=0.5, seed=2).cumsum(1)
    times = 0.5 * torch.arange(1, 7, dtype=F64)
    exact = fbm_covariance(0.8, times)
    spread = exact.diagonal()
    error = ((exact.square() + spread[:, None] * spread) / len(paths)).sqrt()
    assert bool(((paths.mT @ paths / len(paths) - exact).abs() <= 5 * error).all())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"hurst": 0.99}, "outside the table"),
        ({"hurst": math.nan}, "outside the table"),
        ({"hurst": 0.0, "weights": "l2"}, "between 0 and 1"),
        ({"hurst": 0.3, "kind": "II"}, "stationary increments"),
        ({"hurst": 0.3, "normalize": "none"}, "Unknown choice"),
        ({"hurst": 0.3, "dt": 0.0}, "must be positive"),
        ({"hurst": 0.3, "weights": "l2", "rates": torch.tensor([1.0, 1.0])}, "distinct"),
    ],
)
def test_bad_arguments(arguments, words):
    with pytest.raises(ConfigurationError, match=words):
        MarkovApproxFBM(**arguments)


def test_rates_too_close_are_an_error():
    rates = torch.linspace(1.0, 1.0001, 8, dtype=F64)
    with pytest.raises(NumericalError, match="condition number"):
        l2_weights(torch.tensor(0.3, dtype=F64), rates, 1.0)


def test_law_weights_name_the_range():
    with pytest.raises(ConfigurationError, match=r"0\.03, 0\.97"):
        law_weights(torch.tensor([0.5, 0.01], dtype=F64), 100)
