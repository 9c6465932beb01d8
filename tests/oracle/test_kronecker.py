"""Kronecker algebra and conditioning against dense formulas, real and complex."""

import itertools
from functools import reduce

import pytest
import torch
from linear_operator.operators import KroneckerProductLinearOperator, to_linear_operator

from probkit.errors import ShapeError
from probkit.infer.evidence import update_kronecker_scales
from probkit.linalg.kronecker import KroneckerLinearOperator
from probkit.linalg.kronecker_derivatives import factor_gradients
from probkit.linalg.kronecker_gaussian import (
    condition,
    kronecker_log_evidence,
    posterior_variance,
)
from probkit.linalg.mode_products import (
    contract_all_but,
    contract_in_turn,
    mode_products,
    outer,
)
from probkit.random import as_generator

DTYPES = [torch.float64, torch.complex128]


def problem(dtype, batch=(), columns=2, rows=(3, 4, 4), size=5):
    g = as_generator(0)
    factors = [torch.randn(*batch, m, size, generator=g, dtype=dtype) for m in rows]
    scales = [torch.rand(*batch, size, generator=g, dtype=torch.float64) + 0.1 for _ in rows]
    noise = torch.rand(batch, generator=g, dtype=torch.float64) + 0.3
    return factors, scales, noise, torch.randn(*batch, columns, *rows, generator=g, dtype=dtype)


def dense(factors, scales, noise, y):
    a, s = reduce(torch.kron, factors), reduce(torch.kron, scales)
    c = noise * torch.eye(len(a), dtype=a.dtype) + (a * s.to(a.dtype)) @ a.mH
    columns = y.flatten(1).mT
    gain = (a * s.to(a.dtype)).mH @ torch.linalg.inv(c)
    variance = s - (gain @ (a * s.to(a.dtype))).diagonal().real
    quadratic = (columns.conj() * torch.linalg.solve(c, columns)).sum().real
    half = 1.0 if a.is_complex() else 0.5
    pi = torch.tensor(torch.pi / half, dtype=torch.float64)
    logdet = torch.linalg.slogdet(c)[1] + len(a) * pi.log()
    return gain @ columns, variance, -half * (columns.shape[1] * logdet + quadratic)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("rows", [(3, 4, 4), (7, 2), (4,)])
def test_conditioning_is_the_dense_formula(dtype, columns, rows):
    parts = problem(dtype, columns=columns, rows=rows)
    found, (mean, variance, evidence) = condition(*parts), dense(*parts)
    close = {"rtol": 1e-10, "atol": 1e-12}
    torch.testing.assert_close(found.mean.flatten(1).mT, mean, **close)
    torch.testing.assert_close(found.variance.flatten(), variance, **close)
    torch.testing.assert_close(posterior_variance(*parts[:3]).flatten(), variance, **close)
    torch.testing.assert_close(found.log_evidence, evidence, **close)
    residual = parts[3] - mode_products(found.mean, parts[0])
    expected = residual.abs().square().flatten(1).sum(1).mean()
    torch.testing.assert_close(found.residual_square, expected, **close)


@pytest.mark.parametrize("dtype", DTYPES)
def test_batches_are_the_single_problems(dtype):
    factors, scales, noise, y = problem(dtype, batch=(3,))
    whole = condition(factors, scales, noise, y)
    for b in range(3):
        single = condition([f[b] for f in factors], [s[b] for s in scales], noise[b], y[b])
        torch.testing.assert_close(whole.correlation[b], single.correlation)
        torch.testing.assert_close(whole.log_evidence[b], single.log_evidence)
        torch.testing.assert_close(whole.sensitivity[b], single.sensitivity)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [(3, 4, 4), (6, 2)])
def test_gradient_of_the_evidence(dtype, rows):
    factors, scales, noise, y = problem(dtype, rows=rows)
    factors[0] = factors[0] * 0 + torch.eye(rows[0], 5, dtype=dtype)  # equal eigenvalues
    scales[0] = torch.ones_like(scales[0])
    leaves = [x.requires_grad_() for x in (noise, *scales)]

    def evidence(noise, *scales):
        return kronecker_log_evidence(factors, list(scales), noise, y)

    assert torch.autograd.gradcheck(evidence, leaves, eps=1e-6, atol=1e-5)


def test_variance_of_determined_entries_keeps_its_digits():
    factors, scales, _, _ = problem(torch.float64, rows=(6, 7, 8))
    noise = torch.tensor(1e-14, dtype=torch.float64)
    expected = noise * reduce(torch.kron, [torch.linalg.inv(a.mT @ a) for a in factors]).diagonal()
    found = posterior_variance(factors, scales, noise).flatten()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_operator(dtype):
    g = as_generator(1)
    factors = [torch.randn(n, n, generator=g, dtype=dtype) for n in (3, 4)]
    hermitian = [f @ f.mH + torch.eye(len(f), dtype=dtype) for f in factors]
    operator, full = KroneckerLinearOperator(*hermitian), torch.kron(*hermitian)
    rhs = torch.randn(12, 2, generator=g, dtype=dtype)
    torch.testing.assert_close(operator @ rhs, full @ rhs)
    torch.testing.assert_close(operator.mH @ rhs, full.mH @ rhs)
    torch.testing.assert_close(operator.conj().to_dense(), full.conj())
    torch.testing.assert_close(operator.solve(rhs), torch.linalg.solve(full, rhs))
    torch.testing.assert_close(operator.logdet(), torch.linalg.slogdet(full)[1])
    values, vectors = operator.eigenbasis()
    spectrum = outer(values).flatten().to(dtype)
    torch.testing.assert_close((vectors.to_dense() * spectrum) @ vectors.mH.to_dense(), full)
    quadratic, logdet = operator.inv_quad_logdet(rhs, logdet=True)
    expected = (rhs.conj() * torch.linalg.solve(full, rhs)).sum().real
    torch.testing.assert_close(quadratic, expected)
    torch.testing.assert_close(logdet, operator.logdet())
    general = KroneckerLinearOperator(*factors)
    torch.testing.assert_close(
        general.solve(rhs), torch.linalg.solve(torch.kron(*factors), rhs), rtol=1e-8, atol=1e-8
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_operator_plus_diagonal(dtype):
    g = as_generator(2)
    factors = [torch.randn(n, 2, generator=g, dtype=dtype) for n in (3, 4)]
    operator = KroneckerLinearOperator(*(f @ f.mH for f in factors))
    diagonals = [torch.rand(n, generator=g, dtype=torch.float64) + 0.2 for n in (3, 4)]
    full = operator.to_dense() + torch.kron(*diagonals).diag().to(dtype)
    total = operator.add_kronecker_diagonal(diagonals)
    rhs = torch.randn(12, 3, generator=g, dtype=dtype)
    torch.testing.assert_close(total.solve(rhs), torch.linalg.solve(full, rhs))
    torch.testing.assert_close(total.logdet(), torch.linalg.slogdet(full)[1])
    inverse = torch.linalg.inv(full).diagonal().real
    torch.testing.assert_close(total.diagonal_of_inverse(), inverse)
    for sampled, covariance in (
        (total, full),
        (KroneckerLinearOperator(*_positive(g, dtype)),) * 2,
    ):
        draws = (
            sampled.sample(40000, as_generator(3))
            if sampled is total
            else sampled.zero_mean_mvn_samples(40000, as_generator(3))
        )
        target = covariance if sampled is total else covariance.to_dense()
        found = draws.mT @ draws.conj() / len(draws)
        assert (found - target).abs().max() < 0.04 * target.abs().max()


def _positive(generator, dtype):
    for n in (3, 4):
        root = torch.randn(n, n, generator=generator, dtype=dtype)
        yield root @ root.mH + torch.eye(n, dtype=dtype)


def test_upstream_is_silently_wrong_for_complex_solves():
    """Why this operator exists; when upstream is right one day, this test says so."""
    hermitian = list(_positive(as_generator(4), torch.complex128))
    full = torch.kron(*hermitian)
    rhs = torch.randn(12, 1, generator=as_generator(5), dtype=torch.complex128)
    expected = torch.linalg.solve(full, rhs)
    upstream = KroneckerProductLinearOperator(*(to_linear_operator(h) for h in hermitian))
    assert (upstream.solve(rhs) - expected).norm() > 1e-2 * expected.norm()
    assert (KroneckerLinearOperator(*hermitian).solve(rhs) - expected).norm() < 1e-12


def test_contractions_in_any_mode():
    g = as_generator(6)
    grid = torch.rand(2, 3, 4, 5, generator=g, dtype=torch.float64)
    vectors = [torch.rand(2, n, generator=g, dtype=torch.float64) for n in (3, 4, 5)]
    for k in range(3):
        others = outer([torch.ones_like(v) if j == k else v for j, v in enumerate(vectors)])
        rest = [d for d in (1, 2, 3) if d != k + 1]
        torch.testing.assert_close(contract_all_but(grid, vectors, k), (grid * others).sum(rest))


@pytest.mark.parametrize("num_modes", [1, 2, 3, 4, 5])
def test_contractions_in_turn_see_the_modes_before_them(num_modes):
    g = as_generator(8)
    sizes = (3, 4, 2, 5, 3)[:num_modes]
    grids = [torch.rand(2, *sizes, generator=g, dtype=torch.float64) for _ in range(2)]
    first = [torch.rand(2, n, generator=g, dtype=torch.float64) for n in sizes]

    def changed(k, found):
        return found[0] / found[1].sum(-1, keepdim=True) + k

    expected = [list(first), [v.square() for v in first]]
    for k in range(num_modes):
        found = [contract_all_but(p, v, k) for p, v in zip(grids, expected, strict=True)]
        expected[0][k] = changed(k, found)
        expected[1][k] = expected[0][k].sqrt()
    got = [list(first), [v.square() for v in first]]

    def update(k, found):
        got[0][k] = changed(k, found)
        got[1][k] = got[0][k].sqrt()

    contract_in_turn(grids, got, update)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)


def test_mode_products_in_any_order():
    g = as_generator(7)
    x = torch.randn(2, 3, 4, 5, 2, generator=g, dtype=torch.float64)
    for rows in itertools.permutations((2, 6, 3)):
        matrices = [
            torch.randn(2, m, n, generator=g, dtype=torch.float64)
            for m, n in zip(rows, (4, 5, 2), strict=True)
        ]
        expected = torch.einsum("zlabc,zia,zjb,zkc->zlijk", x, *matrices)
        torch.testing.assert_close(mode_products(x, matrices), expected)


def test_bad_factors():
    with pytest.raises(ShapeError, match="at least one matrix"):
        KroneckerLinearOperator()
    with pytest.raises(ShapeError, match="batch dimensions differ"):
        KroneckerLinearOperator(torch.ones(2, 3, 3), torch.ones(3, 3))
    with pytest.raises(ShapeError, match="Only square factors"):
        KroneckerLinearOperator(torch.ones(2, 3)).solve(torch.ones(2))


def test_shared_update_of_scales_is_the_one_of_the_engines():
    from probkit.sparse.updates import evidence_step

    factors, scales, noise, y = problem(torch.float64)
    found = condition(factors, scales, noise, y)
    moment = found.mean.square().mean(0)
    expected = update_kronecker_scales(scales, moment, found.sensitivity)
    torch.testing.assert_close(outer(evidence_step(found)), outer(expected))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_derivative_in_the_factors(dtype):
    g = torch.Generator().manual_seed(0)
    shapes = ((3, 5), (4, 2), (3, 4))
    factors = [torch.randn(2, m, n, dtype=dtype, generator=g) for m, n in shapes]
    scales = [torch.rand(2, n, generator=g, dtype=torch.float64) + 0.1 for _, n in shapes]
    noise = torch.rand(2, generator=g, dtype=torch.float64) + 0.1
    y = torch.randn(2, 2, 3, 4, 3, dtype=dtype, generator=g)
    for k, found in enumerate(factor_gradients(factors, scales, noise, y)):
        along = torch.randn(factors[k].shape, dtype=dtype, generator=g)

        def moved(t, k=k, along=along):
            new = [a + t * along if j == k else a for j, a in enumerate(factors)]
            return condition(new, scales, noise, y).log_evidence.sum()

        slope = (found.conj() * along).sum().real
        torch.testing.assert_close((moved(1e-6) - moved(-1e-6)) / 2e-6, slope, rtol=1e-6, atol=1e-6)
