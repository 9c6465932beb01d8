"""Cyclic reduction against dense linear algebra in float64."""

import pytest
import torch

from probkit.errors import ConfigurationError, NotPositiveDefiniteError, ShapeError
from probkit.linalg.cyclic_reduction import factorize
from probkit.linalg.log_normalizer import log_normalizer
from probkit.random import as_generator


def random_system(batch, length, n, seed=0, dtype=torch.float64):
    """Blocks of a well-conditioned positive definite matrix and the matrix itself."""
    generator = as_generator(seed)
    roots = torch.randn(*batch, length, n, 2 * n, generator=generator, dtype=dtype)
    lower = 0.3 * torch.randn(*batch, length - 1, n, n, generator=generator, dtype=dtype)
    diagonal = roots @ roots.mT / n + (2 + n) * torch.eye(n, dtype=dtype)
    return diagonal, lower


def dense(diagonal, lower):
    *batch, length, n, _ = diagonal.shape
    full = diagonal.new_zeros(*batch, length, n, length, n)
    index = torch.arange(length)
    full[..., index, :, index, :] = diagonal.movedim(-3, 0)
    full[..., index[1:], :, index[:-1], :] = lower.movedim(-3, 0)
    full[..., index[:-1], :, index[1:], :] = lower.mT.movedim(-3, 0)
    return full.reshape(*batch, length * n, length * n)


SHAPES = [((), 1, 2), ((), 2, 1), ((), 7, 3), ((), 8, 2), ((3,), 13, 1), ((2, 3), 6, 4), ((), 5, 9)]


@pytest.mark.parametrize(("batch", "length", "n"), SHAPES)
def test_everything_matches_dense(batch, length, n):
    diagonal, lower = random_system(batch, length, n)
    full = dense(diagonal, lower)
    inverse = torch.linalg.inv(full)
    factor = factorize(diagonal, lower)
    rhs = torch.randn(*batch, length, n, generator=as_generator(1), dtype=torch.float64)
    flat = rhs.reshape(*batch, length * n)
    close = {"rtol": 1e-11, "atol": 1e-12}
    torch.testing.assert_close(factor.logdet(), torch.logdet(full), **close)
    expected = (inverse @ flat.unsqueeze(-1)).reshape(rhs.shape)
    torch.testing.assert_close(factor.solve(rhs), expected, **close)
    torch.testing.assert_close(
        factor.solve(torch.stack([rhs, 2 * rhs], -1))[..., 1], 2 * expected, **close
    )
    torch.testing.assert_close(factor.inv_quad(rhs), (rhs * expected).sum((-2, -1)), **close)
    blocks = inverse.reshape(*batch, length, n, length, n)
    mean, covariance, cross = factor.solve_and_selected_inverse(rhs)
    torch.testing.assert_close(mean, expected, **close)
    for i in range(length):
        torch.testing.assert_close(covariance[..., i, :, :], blocks[..., i, :, i, :], **close)
        if i + 1 < length:
            torch.testing.assert_close(cross[..., i, :, :], blocks[..., i + 1, :, i, :], **close)


@pytest.mark.parametrize("length", [1, 2, 5, 8])
def test_sample_is_a_root_of_the_inverse(length):
    n = 2
    diagonal, lower = random_system((), length, n)
    factor = factorize(diagonal, lower)
    unit = torch.eye(length * n, dtype=torch.float64).reshape(length, n, length * n)
    root = factor.sample(unit).reshape(length * n, length * n)
    torch.testing.assert_close(root @ root.T, torch.linalg.inv(dense(diagonal, lower)))
    torch.testing.assert_close(factor.sample(unit[..., 1]), factor.sample(unit)[..., 1])
    root = factor.root_matmul(unit).reshape(length * n, length * n)
    torch.testing.assert_close(root @ root.T, dense(diagonal, lower))


@pytest.mark.parametrize("length", [1, 4, 5])
def test_log_normalizer_and_its_gradient(length):
    diagonal, lower = random_system((2,), length, 2)
    rhs = torch.randn(2, length, 2, generator=as_generator(1), dtype=torch.float64)
    inputs = [x.requires_grad_() for x in (diagonal, lower, rhs)]

    def reference(d, c, h):
        full, flat = dense(d, c), h.reshape(2, -1, 1)
        return 0.5 * (flat.mT @ torch.linalg.solve(full, flat))[..., 0, 0] - 0.5 * full.logdet()

    value, expected = log_normalizer(*inputs), reference(*inputs)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    weight = torch.tensor([1.0, -2.0], dtype=torch.float64)
    grads = torch.autograd.grad(value @ weight, inputs)
    wanted = torch.autograd.grad(expected @ weight, inputs)
    for got, want in zip(grads, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-12)


def test_log_normalizer_refuses_a_second_derivative():
    diagonal, lower = random_system((), 3, 1)
    diagonal.requires_grad_()
    value = log_normalizer(diagonal, lower, torch.ones(3, 1, dtype=torch.float64))
    with pytest.raises(ConfigurationError, match="once, not twice"):
        torch.autograd.grad(value, diagonal, create_graph=True)


def test_autograd_through_the_elimination():
    diagonal, lower = random_system((), 5, 2)
    inputs = [x.requires_grad_() for x in (diagonal, lower)]
    weight = torch.randn(5, 2, 2, generator=as_generator(2), dtype=torch.float64)
    got = torch.autograd.grad((factorize(*inputs).selected_inverse()[0] * weight).sum(), inputs)
    blocks = torch.linalg.inv(dense(*inputs)).reshape(5, 2, 5, 2)
    index = torch.arange(5)
    want = torch.autograd.grad((blocks[index, :, index, :] * weight).sum(), inputs)
    # Only the lower triangle of a diagonal block is read, so that its gradient lives there.
    symmetric = [0.5 * (g + g.mT) for g in (got[0], want[0])]
    torch.testing.assert_close(symmetric[0], symmetric[1])
    torch.testing.assert_close(got[1], want[1])


def test_errors_name_the_block():
    diagonal, lower = random_system((), 6, 2)
    broken = diagonal.clone()
    broken[3] = -torch.eye(2, dtype=torch.float64)
    with pytest.raises(NotPositiveDefiniteError, match="block 3 of 6"):
        factorize(broken, lower)
    with pytest.raises(ShapeError, match="lower"):
        factorize(diagonal, lower[:-1])
    with pytest.raises(ShapeError, match="rhs"):
        factorize(diagonal, lower).solve(torch.zeros(5, 2, dtype=torch.float64))


def test_float32_stays_float32():
    diagonal, lower = random_system((), 9, 3, dtype=torch.float32)
    factor = factorize(diagonal, lower)
    assert factor.logdet().dtype == factor.selected_inverse()[0].dtype == torch.float32
