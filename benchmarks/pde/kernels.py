"""P10: the mixture kernels' features and closed-form derivatives, against kernel and autograd."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.frame import Context, Line, row
from probkit.kernels import SpectralMixtureKernel
from probkit.kernels.constraints import real_line
from probkit.pde.harmonics import Harmonics

_LENGTH = 2 * math.pi


@row("P10", "features and their derivatives against kernels")
def features(context: Context) -> Iterator[Line]:
    x = torch.linspace(0, _LENGTH, 60, dtype=torch.float64)
    gaussian = _mixture("gaussian", [1.0, 0.5], [3.0, 0.0], [1.0, 0.5])
    student = _mixture("student", [1.0], [3.0], [0.5])
    size = float(gaussian.weights.sum().detach())
    yield Line(
        "features", "Gaussian mixture: largest difference over k(0)", _gap(gaussian, x) / size
    )
    worst = max(_against(gaussian, x[:, None] - x), _images(gaussian, x))
    yield Line("derivatives", "derivatives to (2, 2): autograd and features, relative", worst)
    yield Line("student", "Student-t (Matern 5/2), f_max = 20 / rho: over k(0)", _gap(student, x))
    # up to the fourth in all at zero lag, where autograd has no one-sided limit to take
    apart = x[:, None] - x + 0.01
    yield Line("", "Student-t: derivatives against autograd, relative", _against(student, apart))


def _mixture(
    kind: str, weights: list[float], centers: list[float], lengths: list[float]
) -> SpectralMixtureKernel:
    kernel = SpectralMixtureKernel(len(weights), kind=kind, frequency_constraint=real_line())
    kernel.weights = torch.tensor(weights)
    kernel.frequencies = torch.tensor(centers)
    kernel.lengthscales = torch.tensor(lengths)
    return kernel.requires_grad_(False)


def _basis(kernel: SpectralMixtureKernel) -> tuple[Harmonics, Tensor]:
    found = kernel.harmonic_features(_LENGTH)
    num = (len(found.frequencies) - 1) // 2
    return Harmonics(0.0, _LENGTH, found.period, num), found.variances


def _gap(kernel: SpectralMixtureKernel, x: Tensor) -> float:
    """Largest difference between the features' covariance and the kernel."""
    side, scale = _basis(kernel)
    found = (side.rows(x) * scale) @ side.rows(x).mT
    return float((found - kernel(x[:, None]).to_dense()).abs().max())


def _against(kernel: SpectralMixtureKernel, lag: Tensor) -> float:
    """Largest relative difference of the closed forms from nested differentiation."""
    lag = lag.clone().requires_grad_(True)
    derivative, worst = kernel.lag_covariance(lag, event=2), 0.0
    for order in range(1, 5):
        (derivative,) = torch.autograd.grad(derivative.sum(), lag, create_graph=True)
        wanted = derivative.detach()
        found = kernel.lag_covariance(lag, order, event=2).detach()
        worst = max(worst, float((found - wanted).abs().max() / wanted.abs().max()))
    return worst


def _images(kernel: SpectralMixtureKernel, x: Tensor) -> float:
    """Largest relative difference of the features' derivatives from the kernel's."""
    side, scale = _basis(kernel)
    worst = 0.0
    for a in range(3):
        for b in range(3):
            wanted = kernel.derivative(x[:, None], x[:, None], a, b)
            found = (side.rows(x, a) * scale) @ side.rows(x, b).mT
            worst = max(worst, float((found - wanted).abs().max() / wanted.abs().max()))
    return worst
