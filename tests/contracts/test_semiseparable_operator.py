"""The upstream contract of a linear operator for semiseparable matrices, across block borders."""

import unittest

import pytest
import torch
from linear_operator.operators import DiagLinearOperator
from linear_operator.test.linear_operator_test_case import LinearOperatorTestCase

from probkit.errors import NotPositiveDefiniteError, ShapeError
from probkit.linalg import semiseparable
from probkit.linalg.semiseparable import SemiseparableLinearOperator

pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")


def parts(size, *batch, dtype=torch.float64, seed=0):
    """Two oscillation-free exponentials and a static part; positive definite."""
    g = torch.Generator().manual_seed(seed)
    gaps = 0.05 + torch.rand(*batch, size, 1, generator=g, dtype=dtype)
    rates = torch.tensor([0.3, 5.0, 0.0], dtype=dtype)
    weight = torch.tensor([1.0, 0.5, 0.2], dtype=dtype)
    level = 1 + torch.rand(*batch, size, 1, generator=g, dtype=dtype)
    left = (level * weight).expand(*batch, size, 3)
    right = level.expand(*batch, size, 3)
    diagonal = (left * right).sum(-1) + 0.5  # upstream compares solves in single precision
    return [x.clone() for x in (left, right, -rates * gaps, diagonal)]


def dense(left, right, log_decay, diagonal):
    """By the definition, from explicit products of decays."""
    c = log_decay.cumsum(-2)
    below = torch.ones(c.shape[-2], c.shape[-2], dtype=torch.bool).tril(-1).unsqueeze(-1)
    lag = torch.where(below, c.unsqueeze(-2) - c.unsqueeze(-3), 0.0)
    terms = left.unsqueeze(-2) * right.unsqueeze(-3) * lag.exp()
    lower = terms.sum(-1).tril(-1)
    return lower + lower.mT + torch.diag_embed(diagonal)


class TestSemiseparable(LinearOperatorTestCase, unittest.TestCase):
    seed = 0
    should_test_sample = True
    should_call_cg = False

    def _ensure_symmetric_grad(self, grad):
        """Ours follow the parts, which are not symmetric."""
        return grad

    def create_linear_op(self):
        values = parts(9, dtype=torch.float32)
        return SemiseparableLinearOperator(*(p.requires_grad_() for p in values))

    def evaluate_linear_op(self, linear_op):
        return dense(*linear_op.representation())


class TestSemiseparableBatch(TestSemiseparable):
    def create_linear_op(self):
        values = parts(6, 3, dtype=torch.float32)
        return SemiseparableLinearOperator(*(p.requires_grad_() for p in values))


@pytest.mark.parametrize("size", [5, 64, 65, 200])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_blocks_agree_with_the_dense_matrix(size, batch):
    values = [p.requires_grad_() for p in parts(size, *batch)]
    K, full = SemiseparableLinearOperator(*values), dense(*values)
    rhs = torch.randn(size, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(K @ rhs, full @ rhs)
    torch.testing.assert_close(K.solve(rhs), torch.linalg.solve(full, rhs.expand(*batch, size, 3)))
    torch.testing.assert_close(K.logdet(), torch.linalg.slogdet(full)[1])
    quadratic, logdet = K.inv_quad_logdet(rhs, logdet=True)
    expected = (rhs * torch.linalg.solve(full, rhs.expand(*batch, size, 3))).sum((-2, -1))
    torch.testing.assert_close(quadratic, expected)
    found = torch.autograd.grad((quadratic + logdet).sum(), values)
    wanted = torch.autograd.grad((expected + torch.linalg.slogdet(full)[1]).sum(), values)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


def test_draws_have_the_covariance_also_across_blocks(monkeypatch):
    monkeypatch.setattr(semiseparable, "_ROWS", 3)
    values = parts(8)
    draws = SemiseparableLinearOperator(*values).zero_mean_mvn_samples(
        40_000, torch.Generator().manual_seed(2)
    )
    full = dense(*values)
    error = (full.diagonal()[:, None] * full.diagonal() + full.square()).div(40_000).sqrt()
    assert float(((draws.mT @ draws / 40_000 - full) / error).abs().max()) < 4.5


def test_a_diagonal_keeps_the_structure_and_faults_are_named():
    K = SemiseparableLinearOperator(*parts(7))
    noisy = K + DiagLinearOperator(torch.arange(7.0, dtype=torch.float64))
    assert isinstance(noisy, SemiseparableLinearOperator)
    torch.testing.assert_close(
        noisy.to_dense(), K.to_dense() + torch.diag(torch.arange(7.0).double())
    )
    left, right, decay, diagonal = parts(7)
    with pytest.raises(NotPositiveDefiniteError, match="block 0"):
        SemiseparableLinearOperator(left, right, decay, diagonal - 10).logdet()
    with pytest.raises(ShapeError, match="diagonal"):
        SemiseparableLinearOperator(left, right, decay, diagonal[:-1])


def test_decays_beyond_the_smallest_number_do_no_harm():
    left, right, decay, diagonal = parts(130)
    K = SemiseparableLinearOperator(left, right, 1e4 * decay, diagonal)
    assert bool(K.logdet().isfinite())
    rhs = torch.ones(130, 1, dtype=torch.float64)
    torch.testing.assert_close(K @ K.solve(rhs), rhs)
