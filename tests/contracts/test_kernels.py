"""Every kernel passes GPyTorch's own kernel test case (on one input column) and traces."""

import pickle
import unittest

import gpytorch
import pytest
import torch
from gpytorch.priors import GammaPrior
from gpytorch.test.base_kernel_test_case import BaseKernelTestCase
from torch.fx.experimental.proxy_tensor import make_fx

from probkit.errors import ConfigurationError, ShapeError
from probkit.kernels import (
    KERNEL_NAMES,
    CategoricalKernel,
    CosineKernel,
    FractionalBrownianKernel,
    FractionalNoiseKernel,
    IntegratedWienerKernel,
    KroneckerSBLKernel,
    MarkovFractionalKernel,
    MarkovKernel,
    MarkovScaleKernel,
    MaternKernel,
    PeriodicKernel,
    QuasiPeriodicKernel,
    WienerKernel,
    kernel_from_name,
)

F64 = torch.float64


class OneColumnKernelTestCase(BaseKernelTestCase):
    """Upstream's contract; its data have many columns, a Markov kernel takes one."""

    seed = 1

    def create_data_no_batch(self):
        return torch.rand(50, 10)

    def create_data_single_batch(self):
        return torch.rand(2, 3, 1)

    def create_data_double_batch(self):
        return torch.rand(3, 2, 50, 1)

    def test_active_dims_list(self):
        x = self.create_data_no_batch()
        selected = self.create_kernel_no_ard(active_dims=[4])(x).to_dense()
        plain = self.create_kernel_no_ard()(x[:, [4]]).to_dense()
        self.assertAllClose(selected, plain)

    test_active_dims_range = test_active_dims_list

    def create_kernel_no_ard(self, **kwargs):
        return self.build(dtype=torch.get_default_dtype(), **kwargs)


class TestMatern12(OneColumnKernelTestCase, unittest.TestCase):
    def build(self, **kwargs):
        return MaternKernel(0.5, **kwargs)


class TestMatern72(OneColumnKernelTestCase, unittest.TestCase):
    def build(self, **kwargs):
        return MaternKernel(3.5, **kwargs)


class TestCosine(OneColumnKernelTestCase, unittest.TestCase):
    def build(self, **kwargs):
        return CosineKernel(**kwargs)


class TestPeriodic(OneColumnKernelTestCase, unittest.TestCase):
    def build(self, **kwargs):
        return PeriodicKernel(**kwargs)


class TestQuasiPeriodic(OneColumnKernelTestCase, unittest.TestCase):
    def build(self, **kwargs):
        return QuasiPeriodicKernel(**kwargs)


class TestWiener(OneColumnKernelTestCase, unittest.TestCase):
    def build(self, **kwargs):
        return WienerKernel(**kwargs)


class TestIntegratedWiener(OneColumnKernelTestCase, unittest.TestCase):
    def build(self, **kwargs):
        return IntegratedWienerKernel(initial_variance=1.0, **kwargs)


class TestCategorical(OneColumnKernelTestCase, unittest.TestCase):
    def build(self, **kwargs):
        return CategoricalKernel(**kwargs)


class TestKroneckerSBL(OneColumnKernelTestCase, unittest.TestCase):
    """Inputs are rows of two dictionaries."""

    def create_data_no_batch(self):
        return torch.randint(0, 4, (50, 10)).to(torch.get_default_dtype())

    def create_data_single_batch(self):
        return torch.randint(0, 4, (2, 3, 2)).to(torch.get_default_dtype())

    def create_data_double_batch(self):
        return torch.randint(0, 4, (3, 2, 50, 2)).to(torch.get_default_dtype())

    def test_active_dims_list(self):
        x = self.create_data_no_batch()
        selected = self.create_kernel_no_ard(active_dims=[4, 7])(x).to_dense()
        plain = self.create_kernel_no_ard()(x[:, [4, 7]]).to_dense()
        self.assertAllClose(selected, plain)

    test_active_dims_range = test_active_dims_list

    def build(self, dtype, **kwargs):
        generator = torch.Generator().manual_seed(0)
        factors = [torch.randn(4, n, generator=generator, dtype=dtype) for n in (5, 3)]
        return KroneckerSBLKernel(factors, **kwargs)


class TestFractionalBrownian(OneColumnKernelTestCase, unittest.TestCase):
    def build(self, dtype, **kwargs):
        return FractionalBrownianKernel(0.3, dtype=dtype, **kwargs)


class TestFractionalNoise(OneColumnKernelTestCase, unittest.TestCase):
    def build(self, dtype, **kwargs):
        return FractionalNoiseKernel(0.7, step=0.1, dtype=dtype, **kwargs)


class TestMarkovFractional(OneColumnKernelTestCase, unittest.TestCase):
    def build(self, dtype, **kwargs):
        return MarkovFractionalKernel(0.7, dt=0.01, dtype=dtype, **kwargs)


class TestSumOfProducts(OneColumnKernelTestCase, unittest.TestCase):
    def build(self, **kwargs):
        return MaternKernel(0.5, **kwargs) + 2.0 * MaternKernel(1.5, **kwargs) * CosineKernel(
            **kwargs
        )


@pytest.mark.parametrize("name", KERNEL_NAMES)
def test_named_kernels_trace_without_branches_and_pickle(name):
    kernel = kernel_from_name(name, num_components=2, scale=3.0)
    x1 = torch.rand(5, 1, dtype=F64)
    x2 = torch.rand(4, 1, dtype=F64)
    graph = make_fx(lambda a, b: kernel.forward(a, b))(x1, x2)
    new1, new2 = torch.rand(5, 1, dtype=F64), torch.rand(4, 1, dtype=F64)
    torch.testing.assert_close(graph(new1, new2), kernel(new1, new2).to_dense())
    restored = pickle.loads(pickle.dumps(kernel))
    torch.testing.assert_close(restored(new1, new2).to_dense(), kernel(new1, new2).to_dense())
    assert kernel(x1).to_dense().dtype == F64
    assert kernel.batch_shape == (2,)


@pytest.mark.parametrize("nu", [0.5, 1.5, 2.5])
def test_matern_equals_gpytorch(nu):
    ours = MaternKernel(nu)
    theirs = gpytorch.kernels.MaternKernel(nu).double()
    theirs.lengthscale = torch.tensor(0.37, dtype=F64)
    ours.lengthscale = 0.37
    assert abs(ours.lengthscale.item() - 0.37) < 1e-15
    x = torch.linspace(0, 3, 20, dtype=F64)
    torch.testing.assert_close(ours(x).to_dense(), theirs(x).to_dense(), rtol=1e-10, atol=1e-8)


def test_periodic_converges_to_the_full_kernel():
    x = torch.linspace(0, 3, 40, dtype=F64)
    theirs = gpytorch.kernels.PeriodicKernel().double()
    theirs.lengthscale = torch.tensor(0.7**2, dtype=F64)
    theirs.period_length = torch.tensor(1.3, dtype=F64)
    ours = PeriodicKernel(20)
    ours.lengthscale, ours.period_length = 0.7, 1.3
    torch.testing.assert_close(ours(x).to_dense(), theirs(x).to_dense(), rtol=0, atol=1e-12)


def test_priors_constraints_and_setters():
    prior = GammaPrior(2.0, 3.0)
    constraint = gpytorch.constraints.GreaterThan(0.1)
    kernel = PeriodicKernel(
        lengthscale_prior=prior,
        lengthscale_constraint=constraint,
        period_length_prior=GammaPrior(1.0, 1.0),
    )
    scaled = MarkovScaleKernel(kernel, outputscale=2.0, outputscale_prior=GammaPrior(1.0, 1.0))
    names = {name.rsplit(".", 1)[-1] for name, *_ in scaled.named_priors()}
    assert names == {"lengthscale_prior", "period_length_prior", "outputscale_prior"}
    assert all(parameter.dtype == F64 for parameter in scaled.parameters())
    for _, module, prior, closure, setter in scaled.named_priors():
        setter(module, torch.full_like(closure(module), 0.6))
        torch.testing.assert_close(closure(module), torch.full_like(closure(module), 0.6))
        assert torch.isfinite(prior.log_prob(closure(module))).all()


def test_operators_keep_the_markov_structure():
    matern, cosine = MaternKernel(1.5), CosineKernel()
    total = matern + cosine * 0.5 + MaternKernel(0.5)
    assert isinstance(total, MarkovKernel)
    assert [kernel.state_dimension for kernel in total.kernels] == [2, 2, 1]
    assert total.state_dimension == 5
    mixed = matern + gpytorch.kernels.RBFKernel().double()
    assert not isinstance(mixed, MarkovKernel)
    x = torch.rand(6, 2, dtype=F64)
    additive = MaternKernel(0.5, active_dims=(0,)) + MaternKernel(0.5, active_dims=(1,))
    assert isinstance(additive, gpytorch.kernels.AdditiveKernel)
    assert additive(x).to_dense().shape == (6, 6)


def test_indexing_keeps_active_dims_and_composites():
    base = MaternKernel(0.5, batch_shape=(3,), active_dims=(1,))
    base.lengthscale = torch.tensor([0.1, 0.5, 2.0], dtype=F64)[:, None, None]
    kernel = base * 2.0 + MaternKernel(1.5, active_dims=(1,))
    x = torch.rand(5, 2, dtype=F64)
    full = kernel(x).to_dense()
    torch.testing.assert_close(kernel[1](x).to_dense(), full[1])
    torch.testing.assert_close(kernel[..., 1:](x).to_dense(), full[1:])
    assert base.expand_batch(2, 3).transitions(torch.arange(4.0)).A.shape == (2, 3, 4, 1, 1)


def test_bad_arguments_are_refused_with_a_remedy():
    with pytest.raises(ConfigurationError, match=r"ard_num_dims: got 2.*Remedy"):
        MaternKernel(0.5, ard_num_dims=2)
    with pytest.raises(ConfigurationError, match="active_dims: got"):
        MaternKernel(0.5, active_dims=(0, 1))
    with pytest.raises(ConfigurationError, match="nu: got 2"):
        MaternKernel(2.0)
    with pytest.raises(ShapeError, match="active_dims"):
        MaternKernel(0.5)(torch.rand(4, 2, dtype=F64)).to_dense()
    with pytest.raises(ConfigurationError, match="num_harmonics: got 0"):
        PeriodicKernel(0)
    with pytest.raises(ConfigurationError, match="initial_variance: got -1"):
        WienerKernel(initial_variance=-1.0)
    with pytest.raises(ConfigurationError, match="one of matern12"):
        kernel_from_name("rbf")
    with pytest.raises(ConfigurationError, match="scale: got 0"):
        kernel_from_name("matern12", scale=0.0)
    with pytest.raises(ConfigurationError, match="use transitions"):
        CategoricalKernel().state_space()
