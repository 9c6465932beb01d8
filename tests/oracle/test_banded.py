"""The banded factorisation against dense algebra and cyclic reduction."""

import pytest
import torch

from probkit.errors import NotPositiveDefiniteError, ShapeError
from probkit.kernels import MaternKernel
from probkit.linalg.banded import BandedChain, chain_factor
from probkit.linalg.cyclic_reduction import CyclicReduction, factorize
from probkit.linalg.log_normalizer import log_normalizer
from probkit.random import as_generator
from probkit.statespace.information import prior_precision
from tests.oracle.test_cyclic_reduction import dense, random_system


@pytest.mark.parametrize(("length", "n"), [(2, 1), (7, 3), (8, 2), (5, 9), (40, 4)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_everything_matches_dense(length, n, dtype):
    diagonal, lower = random_system((), length, n, dtype=dtype)
    factor = chain_factor(diagonal, lower)
    assert isinstance(factor, BandedChain)
    inverse = torch.linalg.inv(dense(diagonal, lower).double())
    rhs = torch.randn(length, n, generator=as_generator(1), dtype=dtype)
    close = {"rtol": 1e-11, "atol": 1e-12} if dtype == torch.float64 else {}
    mean, covariance, cross = factor.solve_and_selected_inverse(rhs)
    assert mean.dtype == covariance.dtype == cross.dtype == dtype
    expected = (inverse @ rhs.double().flatten()).reshape(length, n)
    torch.testing.assert_close(mean, expected.to(dtype), **close)
    blocks = inverse.reshape(length, n, length, n).to(dtype)
    torch.testing.assert_close(factor.logdet(), -torch.logdet(inverse).to(dtype), **close)
    for i in range(length):
        torch.testing.assert_close(covariance[i], blocks[i, :, i, :], **close)
        if i + 1 < length:
            torch.testing.assert_close(cross[i], blocks[i + 1, :, i, :], **close)


def test_close_neighbours_fall_back_to_cyclic_reduction():
    even = torch.linspace(0, 1, 21, dtype=torch.float64)
    times = torch.cat([even, even[10:11] + 1e-9]).sort()[0]
    kernel = MaternKernel(0.5)
    prior = prior_precision(kernel.transitions(times))
    diagonal = prior.diagonal + 1.0
    found = chain_factor(diagonal, prior.lower).selected_inverse()
    expected = factorize(diagonal, prior.lower).selected_inverse()
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_where_it_is_taken():
    diagonal, lower = random_system((2,), 6, 2)
    assert isinstance(chain_factor(diagonal, lower), CyclicReduction)
    assert isinstance(chain_factor(diagonal[0], lower[0]), BandedChain)


def test_errors_are_those_of_cyclic_reduction():
    diagonal, lower = random_system((), 6, 2)
    with pytest.raises(ShapeError, match="block-tridiagonal"):
        chain_factor(diagonal, lower[1:])
    for bad in (diagonal.index_fill(0, torch.tensor([3]), -1.0), diagonal / 0):
        with pytest.raises(NotPositiveDefiniteError, match="block"):
            chain_factor(bad, lower)


def test_inputs_are_left_alone_and_gradients_agree():
    diagonal, lower = random_system((), 9, 3)
    rhs = torch.randn(9, 3, generator=as_generator(2), dtype=torch.float64)
    before = diagonal.clone()
    inputs = [x.clone().requires_grad_() for x in (diagonal, lower, rhs)]
    found = torch.autograd.grad(log_normalizer(*inputs), inputs)
    batched = [x.detach()[None].repeat(2, *[1] * x.dim()).requires_grad_() for x in inputs]
    expected = torch.autograd.grad(log_normalizer(*batched)[0], batched)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other[0], rtol=1e-11, atol=1e-12)
    assert torch.equal(diagonal, before)
