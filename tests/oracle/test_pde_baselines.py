"""The paper's objective, as the benchmarks run it, against dense normal densities."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from benchmarks.baselines.adam_collocation import (
    AdamCollocationBaseline,
    AdamCollocationBaseline2D,
)
from probkit.kernels import SpectralMixtureKernel


def kernel_matrices(kind, top, x):
    """K and K'' of the scheme's start, by the library's kernel."""
    kernel = SpectralMixtureKernel(4, kind=kind)
    kernel.frequencies = torch.linspace(1e-9, top, 4)
    # the scheme's scale multiplies the squared lag, or 1 / rho
    kernel.lengthscales = torch.full((4,), math.sqrt(0.5) if kind == "gaussian" else 1.0)
    lag = x[:, None] - x
    value, second = (kernel.lag_covariance(lag, order, event=2).detach() for order in (0, 2))
    return value + 1e-6 * torch.eye(len(x), dtype=x.dtype), second


@pytest.mark.parametrize("kind", ["gaussian", "student"])
def test_objective_on_a_line_is_the_log_joint(kind):
    scheme = AdamCollocationBaseline(
        torch.cos, (0.3, -0.2), 2.0, 9, 3.0, kind=kind, cubic=True, num_components=4
    )
    u = torch.linspace(-1, 1, 9, dtype=torch.float64)
    scheme.values.data.copy_(u)
    K, second = kernel_matrices(kind, 3.0, scheme.x)
    residual = second @ torch.linalg.solve(K, u) + u**3 - u - torch.cos(scheme.x)
    ends = u[[0, -1]] - torch.tensor([0.3, -0.2], dtype=torch.float64)
    prior = MultivariateNormal(torch.zeros(9, dtype=torch.float64), K).log_prob(u)
    standard = Normal(0.0, 1.0)
    # without the constants of the normal densities
    constant = 0.5 * math.log(2 * math.pi) * (9 + 9 + 200 * 2)
    wanted = prior + 200 * standard.log_prob(ends).sum() + standard.log_prob(residual).sum()
    torch.testing.assert_close(-scheme.loss().detach(), wanted + constant, rtol=1e-6, atol=0)


def test_objective_on_a_square_has_a_kronecker_prior():
    scheme = AdamCollocationBaseline2D(
        lambda x: x[:, 0] * x[:, 1], lambda x: x[:, 0], 1.0, 5, 2.0, num_components=4
    )
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(5, 5, dtype=torch.float64, generator=generator)
    scheme.values.data.copy_(u)
    K, second = kernel_matrices("student", 2.0, scheme.x)
    along = second @ torch.linalg.inv(K)
    residual = along @ u + u @ along.mT - scheme.x[:, None] * scheme.x
    mean = torch.zeros(25, dtype=torch.float64)
    prior = MultivariateNormal(mean, torch.kron(K, K)).log_prob(u.flatten())
    gap = (u - scheme.x[:, None]).clone()
    gap[1:-1, 1:-1] = 0
    wanted = prior + 12.5 * math.log(2 * math.pi)
    wanted = wanted - 100 * gap.square().sum() - 0.5 * residual.square().sum()
    torch.testing.assert_close(-scheme.loss().detach(), wanted, rtol=1e-5, atol=0)
    torch.testing.assert_close(scheme.predict(scheme.x), u, rtol=0, atol=1e-4)


def test_epochs_lower_the_loss_and_the_error():
    scheme = AdamCollocationBaseline(
        lambda x: -9 * torch.sin(3 * x), (0.0, math.sin(6.0)), 2.0, 30, 1.0, num_components=4
    )
    exact = torch.sin(3 * scheme.x)
    first = scheme.run(1)
    assert scheme.run(400) < first
    assert (scheme.predict(scheme.x) - exact).norm() < 0.95 * exact.norm()
