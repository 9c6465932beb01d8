"""Fractional kernels: closed forms, structure, and GPyTorch's own regression on them."""

import gpytorch
import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import ToeplitzLinearOperator

from probkit.errors import ConfigurationError, DataError, ShapeError
from probkit.kernels import (
    FractionalBrownianKernel,
    FractionalNoiseKernel,
    MarkovFractionalKernel,
)
from probkit.linalg.semiseparable import SemiseparableLinearOperator
from probkit.statespace.fractional import MarkovApproxFBM
from probkit.statespace.fractional_noise import fbm_covariance, fgn_autocovariance, sample_fgn

F64 = {"dtype": torch.float64}


def uneven(size, seed=0):
    return (0.2 + torch.rand(size, generator=torch.Generator().manual_seed(seed), **F64)).cumsum(0)


@pytest.mark.parametrize("hurst", [0.1, 0.5, 0.9])
def test_exact_kernels_are_the_closed_forms(hurst):
    t = uneven(40)
    motion = FractionalBrownianKernel(hurst)(t[:, None]).to_dense()
    torch.testing.assert_close(motion, fbm_covariance(hurst, t))
    grid = torch.arange(30, **F64)[:, None] * 0.5
    noise = FractionalNoiseKernel(hurst, step=0.5).double()(grid).evaluate_kernel()
    assert isinstance(noise, ToeplitzLinearOperator)
    torch.testing.assert_close(
        noise.to_dense()[0], fgn_autocovariance(hurst, 30), rtol=1e-6, atol=1e-6
    )
    plain = FractionalNoiseKernel(hurst, step=0.5).double()(grid[[0, 3, 4]]).to_dense()
    torch.testing.assert_close(plain, noise.to_dense()[[0, 3, 4]][:, [0, 3, 4]])


@pytest.mark.parametrize("hurst", [0.2, 0.8])
def test_markov_kernel_is_its_process_and_semiseparable(hurst):
    t = uneven(150)
    kernel = MarkovFractionalKernel(hurst, num_steps=500, dt=0.2).double()
    found = kernel(t[:, None]).evaluate_kernel()
    assert isinstance(found, SemiseparableLinearOperator)
    expected = MarkovApproxFBM(kernel.hurst[0].detach(), num_steps=500, dt=0.2).covariance(t)
    torch.testing.assert_close(found.to_dense(), expected)
    shuffled = t[torch.randperm(150, generator=torch.Generator().manual_seed(1))]
    cross = kernel(shuffled[:, None], t[:, None]).to_dense()
    torch.testing.assert_close(cross[0], expected[(t == shuffled[0]).nonzero()[0, 0]])
    torch.testing.assert_close(kernel(t[:, None]).diagonal(), expected.diagonal())


def test_marginal_likelihood_and_gradient_through_gpytorch():
    t = uneven(130)
    kernel = MarkovFractionalKernel(0.3, dt=0.2).double()
    y = sample_fgn(0.3, 130, 1, seed=1)[0].cumsum(0)
    likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
    law = likelihood(MultivariateNormal(torch.zeros(130, **F64), kernel(t[:, None])))
    assert isinstance(law.lazy_covariance_matrix.evaluate_kernel(), SemiseparableLinearOperator)
    value = law.log_prob(y)
    (slope,) = torch.autograd.grad(value, kernel.raw_hurst)
    dense = torch.distributions.MultivariateNormal(
        torch.zeros(130, **F64),
        MarkovApproxFBM(kernel.hurst[0], dt=0.2).covariance(t)
        + likelihood.noise * torch.eye(130, **F64),
    ).log_prob(y)
    (wanted,) = torch.autograd.grad(dense, kernel.raw_hurst)
    torch.testing.assert_close(value, dense, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(slope, wanted, rtol=1e-6, atol=1e-8)


def test_regression_finds_the_index():
    y = sample_fgn(0.75, 600, 1, seed=3)[0].cumsum(0)
    t = torch.arange(1, 601, **F64)[:, None]

    class Regression(gpytorch.models.ExactGP):
        def __init__(self, likelihood):
            super().__init__(t, y, likelihood)
            self.mean_module = gpytorch.means.ZeroMean()
            self.covar_module = gpytorch.kernels.ScaleKernel(MarkovFractionalKernel(0.4)).double()

        def forward(self, x):
            return MultivariateNormal(self.mean_module(x), self.covar_module(x))

    likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
    likelihood.noise = 1e-3
    model = Regression(likelihood)
    objective = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        loss = -objective(model(t), y)
        loss.backward()
        optimizer.step()
    assert model.covar_module.base_kernel.hurst.item() == pytest.approx(0.75, abs=0.06)


@pytest.mark.parametrize(
    "kind", [FractionalBrownianKernel, FractionalNoiseKernel, MarkovFractionalKernel]
)
def test_parameters_are_float64_unless_asked_otherwise(kind):
    x = torch.arange(1.0, 5.0)[:, None]
    for kernel, dtype in ((kind(), torch.float64), (kind(dtype=torch.float32), torch.float32)):
        assert {p.dtype for p in kernel.parameters()} == {dtype}
        assert kernel(x).to_dense().dtype == dtype
    assert float(kind(0.3).hurst.detach()) == pytest.approx(0.3, rel=1e-14)


def test_bad_input_is_named():
    with pytest.raises(ConfigurationError, match="hurst"):
        MarkovFractionalKernel(0.99)
    with pytest.raises(ConfigurationError, match="step"):
        FractionalNoiseKernel(0.5, step=0.0)
    with pytest.raises(DataError, match="starts at time 0"):
        FractionalBrownianKernel()(torch.tensor([[-1.0], [1.0]])).to_dense()
    with pytest.raises(ShapeError, match="one input column"):
        FractionalBrownianKernel()(torch.ones(3, 2)).to_dense()


def test_a_scaled_kernel_keeps_its_structure_at_any_size():
    t = uneven(900)[:, None]  # beyond 800 rows GPyTorch would turn to stochastic estimates
    kernel = gpytorch.kernels.ScaleKernel(MarkovFractionalKernel(0.4, dt=0.2)).double()
    kernel.outputscale = 3.0
    covariance = kernel(t).evaluate_kernel().add_diagonal(torch.tensor(0.1, **F64))
    assert isinstance(covariance, SemiseparableLinearOperator)
    dense = 3 * kernel.base_kernel(t).to_dense() + 0.1 * torch.eye(900, **F64)
    torch.testing.assert_close(covariance.logdet(), torch.logdet(dense))
    batch = kernel.base_kernel(t).evaluate_kernel()._mul_constant(torch.tensor([0.5, 3.0], **F64))
    torch.testing.assert_close(batch.to_dense()[1], dense - 0.1 * torch.eye(900, **F64))
