"""The upstream contract of a linear operator for Kronecker products, square and rectangular."""

import unittest
from functools import reduce

import pytest
import torch
from linear_operator.test.linear_operator_test_case import (
    LinearOperatorTestCase,
    RectangularLinearOperatorTestCase,
)

from probkit.linalg.kronecker import KroneckerLinearOperator
from probkit.random import as_generator

# Torch announces an unset debug switch when upstream's indexing first builds a sparse matrix.
pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")


def dense(operator):
    """Differentiable dense matrix, one problem of the batch at a time."""
    *batch, rows, columns = operator.shape
    flat = [f.reshape(-1, *f.shape[-2:]) for f in operator.factors]
    found = [reduce(torch.kron, [f[b] for f in flat]) for b in range(len(flat[0]))]
    return torch.stack(found).reshape(*batch, rows, columns)


def definite(*batch):
    generator = as_generator(0)
    roots = [torch.randn(*batch, n, n + 3, generator=generator) for n in (3, 2, 2)]
    return [(0.1 * r @ r.mT + torch.eye(r.shape[-2])).requires_grad_() for r in roots]


class TestKronecker(LinearOperatorTestCase, unittest.TestCase):
    seed = 0
    should_test_sample = True
    should_call_cg = False
    should_call_lanczos = False

    def _ensure_symmetric_grad(self, grad):
        """Ours are exact for factors that need not be symmetric; upstream's are symmetrised."""
        return grad

    def create_linear_op(self):
        return KroneckerLinearOperator(*definite())

    def evaluate_linear_op(self, linear_op):
        return dense(linear_op)


class TestKroneckerBatch(TestKronecker):
    def create_linear_op(self):
        return KroneckerLinearOperator(*definite(2))


class TestKroneckerRectangular(RectangularLinearOperatorTestCase, unittest.TestCase):
    seed = 0

    def create_linear_op(self):
        generator = as_generator(0)
        parts = [torch.randn(m, n, generator=generator) for m, n in ((2, 4), (3, 2))]
        return KroneckerLinearOperator(*(p.requires_grad_() for p in parts))

    def evaluate_linear_op(self, linear_op):
        return dense(linear_op)
