"""Spectral mixtures against autograd, quadrature of their spectra and planted frequencies."""

import math

import gpytorch
import pytest
import torch

from probkit.errors import ConfigurationError, DataError, ShapeError
from probkit.kernels import SpectralDerivativeKernel, SpectralMixtureKernel
from probkit.pde import CASES, GPSolver

X = torch.tensor([0.0, 0.13, 0.5, 1.1, 2.0], dtype=torch.float64)


def mixture(kind, **kwargs):
    kernel = SpectralMixtureKernel(3, kind=kind, **kwargs)
    kernel.weights = torch.tensor([1.0, 0.5, 0.2])
    kernel.frequencies = torch.tensor([3.0, 0.01, 1.5])
    kernel.lengthscales = torch.tensor([1.0, 0.5, 0.8])
    return kernel


@pytest.mark.parametrize(("kind", "top"), [("gaussian", 4), ("student", 2)])
def test_derivatives_are_those_of_autograd(kind, top):
    kernel = mixture(kind)
    for a in range(top + 1):
        for b in range(top + 1):
            x1 = X.clone().requires_grad_(True)
            x2 = (X + 0.07).requires_grad_(True)
            # pairs, so that a derivative of the sum is that of each entry
            value = kernel.lag_covariance(x1 - x2)
            for _ in range(a):
                value = torch.autograd.grad(value.sum(), x1, create_graph=True)[0]
            for _ in range(b):
                value = torch.autograd.grad(value.sum(), x2, create_graph=True)[0]
            value = value.detach()
            found = kernel.derivative(X[:, None], X[:, None] + 0.07, a, b).diagonal().detach()
            torch.testing.assert_close(
                found, value, rtol=1e-9, atol=1e-9 * float(value.abs().max())
            )


@pytest.mark.parametrize("kind", ["gaussian", "student"])
def test_double_backward_at_zero_lag(kind):
    kernel = mixture(kind)
    lag = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    first = torch.autograd.grad(kernel.lag_covariance(lag).sum(), lag, create_graph=True)[0]
    second = torch.autograd.grad(first.sum(), lag, create_graph=True)[0]
    torch.testing.assert_close(second, kernel.lag_covariance(lag, 2))
    torch.testing.assert_close(first, torch.zeros_like(first))
    gradient = torch.autograd.grad(second.sum(), kernel.raw_frequencies)[0]
    assert torch.isfinite(gradient).all() and gradient.abs().max() > 0


@pytest.mark.parametrize(("kind", "bound"), [("gaussian", 1e-12), ("student", 1e-9)])
def test_harmonic_features_reproduce_the_kernel(kind, bound):
    kernel = mixture(kind)
    features = kernel.harmonic_features(2.0)
    half = features.frequencies.numel() // 2 + 1
    angle = 2 * math.pi * X[:, None] * features.frequencies
    rows = torch.cat([angle[:, :half].cos(), angle[:, half:].sin()], 1)
    found = (rows * features.variances) @ rows.mT
    wanted = kernel(X[:, None]).to_dense()
    assert (found - wanted).abs().max() < bound * kernel.weights.sum()


def test_derivative_kernel_is_a_covariance_in_gpytorch_order():
    kernel = SpectralDerivativeKernel(mixture("student"), orders=(0, 1, 2))
    full = kernel(X[:, None]).to_dense()
    assert full.shape == (15, 15)
    torch.testing.assert_close(full, full.mT)
    assert torch.linalg.eigvalsh(full).min() > -1e-9 * full.abs().max()
    wanted = kernel.base.derivative(X[1:2, None], X[3:4, None], 1, 2)
    torch.testing.assert_close(full[3 * 1 + 1, 3 * 3 + 2], wanted[0, 0])
    diagonal = kernel(X[:, None], diag=True)
    torch.testing.assert_close(diagonal, full.diagonal())


def test_peaks_of_the_periodogram_are_found_at_scattered_points():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(400, dtype=torch.float64, generator=generator).sort().values * 3
    y = torch.sin(2 * math.pi * 12 * x) + 0.2 * torch.cos(2 * math.pi * 30 * x)
    kernel = SpectralMixtureKernel(2).initialize_from_data(x, y)
    found = kernel.frequencies.detach().sort().values
    torch.testing.assert_close(found, torch.tensor([12.0, 30.0]).double(), rtol=0, atol=0.1)
    strong = kernel.weights[kernel.frequencies.argmin()]
    assert strong > 10 * kernel.weights.min()


def test_batches_priors_and_gpytorch_models():
    prior = gpytorch.priors.GammaPrior(2.0, 1.0)
    kernel = mixture("gaussian", batch_shape=(2,), frequency_prior=prior)
    assert kernel(X[:, None]).to_dense().shape == (2, 5, 5)
    assert kernel(X[:, None], diag=True).shape == (2, 5)
    names = [name for name, *_ in kernel.named_priors()]
    assert names == ["frequencies_prior"]
    product = mixture("gaussian", active_dims=(0,)) * mixture("student", active_dims=(1,))
    points = torch.stack([X, X.flip(0)], 1)
    left = mixture("gaussian")(points[:, :1]).to_dense()
    right = mixture("student")(points[:, 1:]).to_dense()
    torch.testing.assert_close(product(points).to_dense(), left * right)


def test_a_mixture_serves_as_known_prior_of_the_solver():
    case = CASES["poisson_mix"]
    kernel = SpectralMixtureKernel(3)
    kernel.frequencies = torch.tensor([0.2, 3.2, 16.0])
    kernel.lengthscales = torch.full((3,), 0.5)
    solution = GPSolver(prior=kernel.requires_grad_(False)).fit(case.problem(300))
    assert case.error(solution) < 1e-6


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: SpectralMixtureKernel(0), ConfigurationError),
        (lambda: SpectralMixtureKernel(2, active_dims=(0, 1)), ConfigurationError),
        (lambda: mixture("student").lag_covariance(X, 5), ConfigurationError),
        (
            lambda: SpectralDerivativeKernel(mixture("student"), orders=(0, 3)),
            ConfigurationError,
        ),
        (lambda: mixture("gaussian")(torch.zeros(3, 2).double()).to_dense(), ShapeError),
        (lambda: mixture("gaussian").harmonic_features(-1.0), ConfigurationError),
        (lambda: mixture("gaussian").initialize_from_data(X, X[:3]), ShapeError),
        (lambda: mixture("gaussian").initialize_from_data(X, X / 0), DataError),
    ],
)
def test_mistakes_are_refused(call, error):
    with pytest.raises(error):
        call()
