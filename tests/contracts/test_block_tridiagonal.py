"""The upstream contract of a linear operator, and the same at float64 precision."""

import math
import unittest

import linear_operator
import pytest
import torch
from linear_operator.test.linear_operator_test_case import LinearOperatorTestCase

from probkit.errors import ShapeError
from probkit.linalg.block_tridiagonal import BlockTridiagonalLinearOperator
from probkit.random import as_generator

# Torch announces an unset debug switch when upstream's indexing first builds a sparse matrix.
pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")


def blocks(batch, length=4, n=2, dtype=torch.float32):
    generator = as_generator(0)
    roots = torch.randn(*batch, length, n, n + 2, generator=generator, dtype=dtype)
    lower = 0.2 * torch.randn(*batch, length - 1, n, n, generator=generator, dtype=dtype)
    return 0.2 * roots @ roots.mT + 2 * torch.eye(n, dtype=dtype), lower


def dense(diagonal, lower):
    """Differentiable dense matrix, block row by block row."""
    length, zero = diagonal.shape[-3], torch.zeros_like(diagonal[..., 0, :, :])
    rows = []
    for i in range(length):
        row = [zero] * length
        row[i] = diagonal[..., i, :, :]
        if i > 0:
            row[i - 1] = lower[..., i - 1, :, :]
        if i + 1 < length:
            row[i + 1] = lower[..., i, :, :].mT
        rows.append(torch.cat(row, -1))
    return torch.cat(rows, -2)


class TestBlockTridiagonal(LinearOperatorTestCase, unittest.TestCase):
    seed = 0
    should_test_sample = True
    should_call_cg = False

    def create_linear_op(self):
        return BlockTridiagonalLinearOperator(*(x.requires_grad_() for x in blocks(())))

    def evaluate_linear_op(self, linear_op):
        return dense(linear_op.diagonal_blocks, linear_op.lower_blocks)


class TestBlockTridiagonalBatch(TestBlockTridiagonal):
    def create_linear_op(self):
        return BlockTridiagonalLinearOperator(*(x.requires_grad_() for x in blocks((2, 3), 3)))


@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("size_limit", [0, math.inf])
def test_exact_whatever_the_settings(batch, size_limit):
    parts = [x.requires_grad_() for x in blocks(batch, 6, 3, torch.float64)]
    operator, full = BlockTridiagonalLinearOperator(*parts), dense(*parts)
    rhs = torch.randn(*batch, 18, 2, generator=as_generator(1), dtype=torch.float64)
    close = {"rtol": 1e-10, "atol": 1e-10}
    with linear_operator.settings.max_cholesky_size(size_limit):
        quadratic, logdet = operator.inv_quad_logdet(rhs, logdet=True)
        solution = operator.solve(rhs)
    expected = torch.linalg.solve(full, rhs)
    torch.testing.assert_close(solution, expected, **close)
    torch.testing.assert_close(quadratic, (rhs * expected).sum((-2, -1)), **close)
    torch.testing.assert_close(logdet, torch.logdet(full), **close)
    torch.testing.assert_close(operator.diagonal(), full.diagonal(dim1=-2, dim2=-1))
    got = torch.autograd.grad((quadratic + 2 * logdet).sum(), parts)
    want = torch.autograd.grad(((rhs * expected).sum() + 2 * torch.logdet(full).sum()), parts)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, **close)


def test_selected_inverse_and_samples():
    parts = blocks((), 5, 2, torch.float64)
    operator, full = BlockTridiagonalLinearOperator(*parts), dense(*parts)
    inverse = torch.linalg.inv(full)
    diagonal, lower = operator.selected_inverse()
    torch.testing.assert_close(diagonal[2], inverse[4:6, 4:6])
    torch.testing.assert_close(lower[2], inverse[6:8, 4:6])
    draws = operator.inverse_mvn_samples(20_000, as_generator(3))
    assert draws.shape == (20_000, 10)
    torch.testing.assert_close(draws.T @ draws / 20_000, inverse, rtol=0.0, atol=0.02)


def test_one_block_and_wrong_shapes():
    diagonal, lower = blocks((), 1, 3, torch.float64)
    operator = BlockTridiagonalLinearOperator(diagonal, lower)
    torch.testing.assert_close(operator.to_dense(), diagonal[0])
    torch.testing.assert_close(operator.logdet(), torch.logdet(diagonal[0]))
    with pytest.raises(ShapeError, match="lower"):
        BlockTridiagonalLinearOperator(diagonal, diagonal)
