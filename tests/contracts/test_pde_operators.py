"""Toeplitz and Kronecker-sum operators under upstream's contract, and against dense algebra."""

import unittest

import pytest
import torch
from linear_operator.test.linear_operator_test_case import LinearOperatorTestCase

from probkit.errors import NumericalError, ShapeError
from probkit.linalg.kronecker_sum import KroneckerSum, KroneckerSumLinearOperator
from probkit.linalg.toeplitz import GeneralToeplitzLinearOperator
from probkit.random import as_generator

pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")


def spd(n, batch=(), dtype=torch.float32, seed=0):
    root = torch.randn(*batch, n, n + 2, generator=as_generator(seed), dtype=dtype)
    return root @ root.mT + torch.eye(n, dtype=dtype)


def dense_sum(factors):
    total = torch.zeros(())
    for k, factor in enumerate(factors):
        parts = [torch.eye(f.shape[-1], dtype=f.dtype) for f in factors]
        part = torch.ones(1, 1, dtype=factor.dtype)
        for j, eye in enumerate(parts):
            own = factor if j == k else eye
            part = (part[..., :, None, :, None] * own[..., None, :, None, :]).flatten(-4, -3)
            part = part.flatten(-2, -1)
        total = total + part
    return total


class TestKroneckerSum(LinearOperatorTestCase, unittest.TestCase):
    seed = 0
    should_test_sample = True
    should_call_cg = False

    def create_linear_op(self):
        return KroneckerSumLinearOperator(spd(3).requires_grad_(), spd(2, seed=1).requires_grad_())

    def evaluate_linear_op(self, linear_op):
        return dense_sum(linear_op.factors)


class TestKroneckerSumBatch(TestKroneckerSum):
    def create_linear_op(self):
        parts = [spd(n, (2,), seed=n).requires_grad_() for n in (2, 3, 2)]
        return KroneckerSumLinearOperator(*parts)


class TestToeplitz(LinearOperatorTestCase, unittest.TestCase):
    seed = 0

    def create_linear_op(self):
        return GeneralToeplitzLinearOperator(torch.tensor([4.0, 0.5, 0.2, 0.1], requires_grad=True))

    def evaluate_linear_op(self, linear_op):
        return linear_op.to_dense()


def test_kronecker_sum_of_three_terms_is_exact():
    factors = [spd(n, dtype=torch.float64, seed=n) for n in (3, 4, 2)]
    operator, dense = KroneckerSumLinearOperator(*factors), dense_sum(factors)
    rhs = torch.randn(24, 3, generator=as_generator(0), dtype=torch.float64)
    torch.testing.assert_close(operator.solve(rhs), torch.linalg.solve(dense, rhs))
    torch.testing.assert_close(operator.logdet(), torch.logdet(dense))
    twice = operator.sqrt_matmul(operator.sqrt_matmul(rhs))
    torch.testing.assert_close(twice, dense @ rhs)


def test_fast_diagonalisation_without_symmetry():
    generator = as_generator(1)
    factors = [torch.randn(n, n, generator=generator, dtype=torch.float64) for n in (3, 4)]
    fast, dense = KroneckerSum(factors), dense_sum(factors) + 9 * torch.eye(12).double()
    rhs = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    expected = torch.linalg.solve(dense, rhs.flatten()).reshape(3, 4)
    torch.testing.assert_close(fast.solve(rhs, 9.0), expected)
    turned = torch.linalg.solve(dense.mT, rhs.flatten()).reshape(3, 4)
    torch.testing.assert_close(fast.solve_transposed(rhs, 9.0), turned)
    assert abs(fast.logdet(9.0) - float(torch.linalg.slogdet(dense)[1])) < 1e-10
    with pytest.raises(NumericalError, match="singular"):
        KroneckerSum([torch.zeros(2, 2), torch.zeros(2, 2)]).solve(torch.ones(2, 2))


def test_general_toeplitz_products():
    generator = as_generator(2)
    column, row = torch.randn(2, 7, generator=generator, dtype=torch.float64)
    operator = GeneralToeplitzLinearOperator(column, row)
    rhs = torch.randn(7, 2, generator=generator, dtype=torch.float64)
    dense = operator.to_dense()
    assert dense[3, 1] == column[2]
    assert dense[1, 3] == row[2]
    torch.testing.assert_close(operator @ rhs, dense @ rhs)
    torch.testing.assert_close(operator.mT @ rhs, dense.mT @ rhs)
    with pytest.raises(ShapeError):
        GeneralToeplitzLinearOperator(column, row[:3])
