"""All forms of the smoother against a dense Gaussian process, and their gradients."""

import math

import pytest
import torch
from dense_gp import Matern, dense_posterior, joint_covariance, random_sites

from probkit.errors import (
    ConfigurationError,
    DataError,
    NotPositiveDefiniteError,
    ShapeError,
)
from probkit.random import as_generator
from probkit.statespace.information import smooth_information
from probkit.statespace.sampling import sample_posterior, sample_prior
from probkit.statespace.scan import smooth_parallel
from probkit.statespace.sites import observe
from probkit.statespace.smoother import choose_method, log_normalizer, smooth
from probkit.statespace.stacking import block_diagonal, stack, stack_batch
from probkit.statespace.types import Sites, Transitions

METHODS = ["information", "parallel", "sequential"]


def problem(nu, length=200, missing=20, seed=0, gap=0.02):
    """Three stacked components at irregular times with full sites, and the dense answer."""
    generator = as_generator(seed)
    kernels = [Matern(nu, scale, variance) for scale, variance in ((1, 1), (0.5, 2), (2, 0.5))]
    times = torch.rand(length, generator=generator, dtype=torch.float64)
    times = torch.cumsum(gap + 0.3 * times, 0)
    transitions = stack([kernel.transitions(times) for kernel in kernels])
    H = block_diagonal([kernel.H for kernel in kernels])
    sites = random_sites(length, 3, generator, missing=missing)
    return kernels, times, transitions, H, sites


def assert_dense(posterior, mean, covariance, value, tolerance):
    index = torch.arange(len(mean))
    blocks = covariance[index, :, index, :]
    cross = covariance[index[1:], :, index[:-1], :]
    sd = blocks.diagonal(dim1=-2, dim2=-1).sqrt()
    scale = mean.abs().amax(0) + sd.amax(0)
    assert float(((posterior.mean - mean) / scale).abs().max()) < tolerance
    scaled = (posterior.covariance - blocks) / sd[:, :, None] / sd[:, None, :]
    assert float(scaled.abs().max()) < tolerance
    pair = (posterior.cross - cross) / sd[1:, :, None] / sd[:-1, None, :]
    assert pair.numel() == 0 or float(pair.abs().max()) < tolerance
    assert abs(float(posterior.log_normalizer - value)) < tolerance * abs(float(value))


@pytest.mark.parametrize("method", ["auto", "parallel", "sequential"])
@pytest.mark.parametrize("nu", [0.5, 1.5, 2.5])
def test_every_form_equals_the_dense_process(nu, method):
    kernels, times, transitions, H, sites = problem(nu)
    expected = dense_posterior_of(kernels, times, H, sites)
    assert_dense(smooth(transitions, H, sites, method), *expected, 1e-9)


@pytest.mark.parametrize("nu", [0.5, 1.5])
def test_information_form_equals_the_dense_process(nu):
    kernels, times, transitions, H, sites = problem(nu)
    expected = dense_posterior_of(kernels, times, H, sites)
    assert_dense(smooth_information(transitions, H, sites), *expected, 1e-9)


def dense_posterior_of(kernels, times, H, sites):
    # Components with a missing site keep a zero block: the dense root needs a definite matrix.
    tiny = 1e-300 * torch.eye(sites.precision.shape[-1], dtype=torch.float64)
    padded = sites._replace(precision=sites.precision + tiny)
    return dense_posterior(joint_covariance(kernels, times), H, padded)


@pytest.mark.parametrize("length", [1, 2, 5, 17])
@pytest.mark.parametrize("chunk", [2, 3, 8])
def test_chunks_of_any_size(length, chunk):
    kernels, times, transitions, H, sites = problem(1.5, length, missing=0)
    expected = dense_posterior_of(kernels, times, H, sites)
    assert_dense(smooth_parallel(transitions, H, sites, chunk=chunk), *expected, 1e-10)


@pytest.mark.parametrize("gap", [1e-4, 1e-6, 1e-8, 1e-10, 1e-12, 0.0])
def test_near_duplicate_points(gap):
    kernel = Matern(1.5, 0.3)
    times = torch.rand(50, generator=as_generator(1), dtype=torch.float64)
    times = torch.cat([times, times + gap]).sort().values
    y = torch.sin(6 * times) + 1e-3 * torch.randn(
        100, generator=as_generator(2), dtype=torch.float64
    )
    gram = kernel.covariance(times, times)[:, 0, :, 0]
    mean = gram @ torch.linalg.solve(gram + 1e-6 * torch.eye(100, dtype=torch.float64), y)
    transitions, sites = kernel.transitions(times), observe(y, 1e-6)
    assert choose_method(transitions).method == "parallel"
    for method in ("auto", "sequential"):
        posterior = smooth(transitions, kernel.H, sites, method)
        torch.testing.assert_close(posterior.mean[:, 0], mean, rtol=0.0, atol=1e-7)
        assert bool((posterior.covariance.diagonal(dim1=-2, dim2=-1) > 0).all())


@pytest.mark.parametrize("method", METHODS)
def test_batch_dimensions(method):
    parts = [problem(0.5, 7, missing=1, seed=seed) for seed in range(2)]
    transitions = Transitions(*(torch.stack(x) for x in zip(*(p[2] for p in parts), strict=True)))
    sites = Sites(*(torch.stack(x) for x in zip(*(p[4] for p in parts), strict=True)))
    batched = smooth(transitions, parts[0][3], sites, method)
    for i, (_, _, single, H, site) in enumerate(parts):
        alone = smooth(single, H, site, method)
        for got, want in zip(batched, alone, strict=True):
            torch.testing.assert_close(got[i], want, rtol=1e-10, atol=1e-11)
    shared = smooth(parts[0][2], parts[0][3], sites, method)
    torch.testing.assert_close(shared.mean[0], batched.mean[0], rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("whole", [True, False])
def test_gradient_of_the_log_normalizer(method, whole):
    _, _, transitions, H, sites = problem(0.5, 6, missing=1, gap=0.2)
    scale = torch.ones(2, dtype=torch.float64, requires_grad=True)
    leaves = [scale, H.requires_grad_(), *(x.requires_grad_() for x in sites)]

    def evaluate(method):
        decay = torch.cat([0 * transitions.A[:1], transitions.A[1:] * scale[0]])
        prior = Transitions(decay, transitions.Q * scale[1])
        if whole:
            return smooth(prior, H, sites, method).log_normalizer
        return log_normalizer(prior, H, sites, method)

    got = torch.autograd.grad(evaluate(method), leaves)
    want = torch.autograd.grad(dense_evidence(transitions, scale, H, sites), leaves)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def dense_evidence(transitions, scale, H, sites):
    """Evidence by the dense joint of the path, differentiable in everything."""
    T, n = transitions.A.shape[0], transitions.A.shape[-1]
    rows = []
    for i in range(T):
        if i == 0:
            rows.append(torch.eye(n, T * n, dtype=torch.float64))
        else:
            fresh = torch.zeros(n, T * n, dtype=torch.float64)
            fresh[:, i * n : (i + 1) * n] = torch.eye(n, dtype=torch.float64)
            rows.append(transitions.A[i] * scale[0] @ rows[-1] + fresh)
    lift = torch.cat(rows)
    noise = torch.block_diag(*(transitions.Q * scale[1]))
    prior = lift @ noise @ lift.T
    big_h = torch.block_diag(*[H] * T)
    information = big_h.T @ torch.block_diag(*sites.precision) @ big_h
    linear = big_h.T @ sites.linear.reshape(-1)
    system = torch.eye(T * n, dtype=torch.float64) + prior @ information
    quadratic = linear @ torch.linalg.solve(system, prior @ linear)
    return sites.log_scale + 0.5 * (quadratic - torch.logdet(system))


def test_gradient_survives_coinciding_points():
    kernel, times = Matern(1.5, 0.5), torch.tensor([0.0, 0.0, 0.3, 0.3, 1.0], dtype=torch.float64)
    A, Q = (x.requires_grad_() for x in kernel.transitions(times))
    sites = observe(torch.tensor([0.1, 0.2, 0.5, 0.4, -0.3], dtype=torch.float64), 0.01)
    grads = [
        torch.autograd.grad(log_normalizer(Transitions(A, Q), kernel.H, sites, method), (A, Q))
        for method in ("auto", "sequential")
    ]
    for first, second in zip(*grads, strict=True):
        assert bool(torch.isfinite(first).all())
        torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-9)


def test_observations_give_the_log_likelihood_and_nan_is_missing():
    kernel = Matern(1.5, 0.7)
    times = torch.linspace(0, 3, 12, dtype=torch.float64)
    y = torch.sin(times)
    y[4] = float("nan")
    noise = torch.linspace(0.1, 0.2, 12, dtype=torch.float64)
    keep = ~torch.isnan(y)
    gram = kernel.covariance(times, times)[:, 0, :, 0] + torch.diag(noise)
    law = torch.distributions.MultivariateNormal(
        torch.zeros(11, dtype=torch.float64), gram[keep][:, keep]
    )
    value = log_normalizer(kernel.transitions(times), kernel.H, observe(y, noise))
    torch.testing.assert_close(value, law.log_prob(y[keep]), rtol=1e-11, atol=1e-11)
    masked = observe(torch.nan_to_num(y), noise, keep)
    torch.testing.assert_close(masked, observe(y, noise))
    with pytest.raises(DataError, match="noise"):
        observe(y, 0.0)
    with pytest.raises(DataError, match="infinite"):
        observe(torch.tensor([math.inf]), 1.0)


@pytest.mark.parametrize("method", ["information", "parallel"])
def test_posterior_paths_have_the_posterior_law(method):
    _, _, transitions, H, sites = problem(0.5, 4, missing=1)
    posterior = smooth(transitions, H, sites)
    draws = sample_posterior(transitions, H, sites, 20_000, 3, method)
    centred = draws - posterior.mean
    sd = posterior.covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    assert float((centred.mean(0) / sd).abs().max()) < 5 / math.sqrt(20_000)
    pair = torch.einsum("sti,stj->tij", centred[:, 1:], centred[:, :-1]) / 20_000
    scaled = (pair - posterior.cross) / sd[1:, :, None] / sd[:-1, None, :]
    assert float(scaled.abs().max()) < 6 / math.sqrt(20_000)
    again = sample_posterior(transitions, H, sites, 20_000, 3, method)
    assert torch.equal(draws, again)


def test_prior_paths_and_stacking():
    kernel, times = Matern(1.5, 0.5), torch.tensor([0.0, 0.1, 0.1, 0.6], dtype=torch.float64)
    one = kernel.transitions(times)
    both = stack([one, one])
    pair = Transitions(*(torch.stack([x, x]) for x in one))
    torch.testing.assert_close(stack_batch(pair), both)
    draws = sample_prior(both, 20_000, 0)
    assert torch.equal(draws[:, 1], draws[:, 2])
    dense = joint_covariance([kernel, kernel], times)
    got = torch.einsum("si,sj->ij", draws[:, 0], draws[:, 3]) / 20_000
    sd = dense[0, :, 0, :].diagonal().sqrt()
    scaled = (got - dense[0, :, 3, :]) / sd[:, None] / sd
    assert float(scaled.abs().max()) < 6 / math.sqrt(20_000)
    with pytest.raises(ShapeError, match="components"):
        stack([one, kernel.transitions(times[:3])])


def test_choice_and_errors():
    kernel = Matern(0.5)
    transitions = kernel.transitions(torch.linspace(0, 1, 20, dtype=torch.float64))
    choice = choose_method(transitions)
    assert choice.method == "information"
    assert "condition" in choice.reason
    sites = observe(torch.zeros(20, dtype=torch.float64), 1.0)
    with pytest.raises(ConfigurationError, match="method"):
        smooth(transitions, kernel.H, sites, "fast")
    negative = sites._replace(precision=-sites.precision)
    with pytest.raises(NotPositiveDefiniteError, match=r"sites\.precision"):
        smooth(transitions, kernel.H, negative, "parallel")
    coinciding = kernel.transitions(torch.zeros(20, dtype=torch.float64))
    with pytest.raises(NotPositiveDefiniteError, match=r"Q\[1\]"):
        smooth(coinciding, kernel.H, sites, "information")
    A = transitions.A.clone().requires_grad_()
    posterior = smooth(Transitions(A, transitions.Q), kernel.H, sites, "sequential")
    with pytest.raises(ConfigurationError, match="log normaliser only"):
        posterior.mean.sum().backward()


def test_gradients_of_the_marginals_equal_in_both_forms():
    _, _, transitions, H, sites = problem(1.5, length=40, missing=5)
    generator = as_generator(1)
    found = []
    for method in ("information", "parallel"):
        leaves = [x.clone().requires_grad_() for x in (*transitions, H, *sites[:2])]
        A, Q, row, precision, linear = leaves
        given = Sites(precision, linear, sites.log_scale)
        posterior = smooth(Transitions(A, Q), row, given, method)
        if not found:
            like = (posterior.mean, posterior.covariance, posterior.cross)
            weights = [torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in like]
        total = sum((w * x).sum() for w, x in zip(weights, posterior[:3], strict=True))
        grads = torch.autograd.grad(total + posterior.log_normalizer, leaves)
        found.append([grads[0], 0.5 * (grads[1] + grads[1].mT), *grads[2:]])
    seen = sites.precision.diagonal(dim1=-2, dim2=-1).sum(-1) > 0
    found = [[*g[:3], 0.5 * (g[3] + g[3].mT)[seen], g[4]] for g in found]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-8)


def test_integrated_wiener_process_takes_the_covariance_form():
    length = 400
    step = torch.ones(length, dtype=torch.float64)
    A = torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=torch.float64).repeat(length, 1, 1)
    Q = torch.tensor([[1 / 3, 0.5], [0.5, 1.0]], dtype=torch.float64).repeat(length, 1, 1)
    H = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert choose_method(Transitions(A, Q)).method == "parallel"
    sites = observe(step.cumsum(0), 1.0)
    auto = smooth(Transitions(A, Q), H, sites)
    sequential = smooth(Transitions(A, Q), H, sites, "sequential")
    torch.testing.assert_close(auto, sequential, rtol=1e-9, atol=1e-9)
