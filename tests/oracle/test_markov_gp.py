"""MarkovGaussianProcess against the dense multivariate normal, alone and inside Pyro models."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS, Trace_ELBO
from torch.distributions import kl_divergence

from probkit.distributions.markov_gp import MarkovGaussianProcess
from probkit.errors import ConfigurationError, DataError, NotPositiveDefiniteError, ShapeError
from probkit.kernels import (
    CategoricalKernel,
    CosineKernel,
    MarkovScaleKernel,
    MaternKernel,
    kernel_from_name,
)
from probkit.statespace.noise_free import log_density
from probkit.statespace.smoother import choose_method
from probkit.statespace.types import Sites

F64 = torch.float64
TIMES = torch.tensor([0.1, 0.3, 0.35, 0.9, 1.0, 2.5, 2.6, 4.0, 4.4], dtype=F64)
NUM_POINTS = len(TIMES)


def build(name):
    if name == "sum":
        kernel = MaternKernel(1.5, batch_shape=(2,)) + CosineKernel() * 0.3 + MaternKernel(0.5)
    elif name == "quasi_periodic":
        kernel = kernel_from_name(name, num_components=2, scale=4.0)
    elif name == "categorical":
        kernel = CategoricalKernel(batch_shape=(2,))
    else:
        kernel = kernel_from_name(name, num_components=2, scale=4.0)
        kernel.lengthscale = torch.tensor([0.3, 2.0], dtype=F64)[:, None, None]
    return kernel


NAMES = ["matern12", "matern32", "matern72", "wiener", "integrated_wiener", "sum"]
NAMES += ["quasi_periodic", "categorical"]


def dense(kernel, mean=0.0):
    covariance = kernel(TIMES).to_dense()
    return dist.MultivariateNormal(torch.full((2, NUM_POINTS), mean, dtype=F64), covariance)


def some_sites(*batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    precision = torch.rand(*batch, NUM_POINTS, 1, 1, generator=generator, dtype=F64) * 20
    precision[..., 3, :, :] = 0
    linear = torch.randn(*batch, NUM_POINTS, 1, generator=generator, dtype=F64)
    linear[..., 3, :] = 0
    return Sites(precision, linear, torch.zeros(batch, dtype=F64))


def dense_posterior(kernel, sites, mean=0.0):
    prior = dense(kernel, mean)
    precision = torch.linalg.inv(prior.covariance_matrix)
    total = precision + torch.diag_embed(sites.precision[..., 0, 0])
    linear = sites.linear[..., 0] + (precision @ prior.loc.unsqueeze(-1))[..., 0]
    covariance = torch.linalg.inv(total)
    loc = (covariance @ linear.unsqueeze(-1))[..., 0]
    return dist.MultivariateNormal(loc, covariance_matrix=0.5 * (covariance + covariance.mT))


@pytest.mark.parametrize("name", NAMES)
def test_log_prob_moments_and_gradient_equal_dense(name):
    kernel = build(name)
    process, truth = MarkovGaussianProcess(kernel, TIMES, mean=0.3), dense(kernel, 0.3)
    value = torch.randn(4, 2, NUM_POINTS, dtype=F64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(process.log_prob(value), truth.log_prob(value), rtol=1e-9, atol=1e-8)
    torch.testing.assert_close(process.mean, truth.mean)
    torch.testing.assert_close(process.variance, truth.variance, rtol=1e-10, atol=1e-10)
    parameters = list(kernel.parameters())
    if parameters:
        ours = torch.autograd.grad(process.log_prob(value).sum(), parameters)
        theirs = torch.autograd.grad(truth.log_prob(value).sum(), parameters)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-7)


WELL_CONDITIONED = ["matern12", "matern32", "wiener", "quasi_periodic", "categorical"]


@pytest.mark.parametrize("name", WELL_CONDITIONED)
def test_both_forms_of_the_density_agree(name):
    process = MarkovGaussianProcess(build(name), TIMES)
    assert choose_method(process.transitions).method == "information"
    with torch.random.fork_rng():
        torch.manual_seed(2)
        value = process.sample()
    forms = [
        log_density(process.transitions, process.output_map, value, method=method)
        for method in ("information", "sequential")
    ]
    torch.testing.assert_close(*forms, rtol=1e-8, atol=1e-7)


def test_near_duplicate_points_take_the_sequential_form():
    kernel = MaternKernel(1.5)
    times = torch.tensor([0.0, 0.5, 0.5 + 1e-7, 1.0], dtype=F64)
    process = MarkovGaussianProcess(kernel, times)
    value = torch.tensor([0.0, 0.4, 0.4 + 2e-8, 0.3], dtype=F64)
    sequential = log_density(process.transitions, process.output_map, value, method="sequential")
    torch.testing.assert_close(process.log_prob(value), sequential, rtol=1e-9, atol=1e-8)
    assert torch.isfinite(sequential)


@pytest.mark.parametrize("name", NAMES)
def test_sites_give_the_exact_posterior_process(name):
    kernel, sites = build(name), some_sites(2)
    prior = MarkovGaussianProcess(kernel, TIMES, mean=0.3)
    process, truth = prior.condition(sites), dense_posterior(kernel, sites, 0.3)
    value = torch.randn(4, 2, NUM_POINTS, dtype=F64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(process.mean, truth.mean, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(process.variance, truth.variance, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(process.log_prob(value), truth.log_prob(value), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(
        kl_divergence(process, prior),
        kl_divergence(truth, dense(kernel, 0.3)),
        rtol=1e-7,
        atol=1e-7,
    )
    other = prior.condition(some_sites(2, seed=5))
    torch.testing.assert_close(
        kl_divergence(process, other),
        kl_divergence(truth, dense_posterior(kernel, some_sites(2, seed=5), 0.3)),
        rtol=1e-7,
        atol=1e-7,
    )
    twice = prior.condition(Sites(*(0.5 * part for part in sites)))
    twice = twice.condition(Sites(*(0.5 * part for part in sites)))
    torch.testing.assert_close(twice.mean, process.mean, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "with_sites"),
    [("matern32", False), ("matern32", True), ("sum", True), ("quasi_periodic", False)],
)
def test_samples_have_the_exact_covariance(name, with_sites):
    kernel, sites = build(name), some_sites(2)
    process = MarkovGaussianProcess(kernel, TIMES, mean=0.3, sites=sites if with_sites else None)
    truth = dense_posterior(kernel, sites, 0.3) if with_sites else dense(kernel, 0.3)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        draws = process.rsample((4000,)).detach()
    assert draws.shape == (4000, 2, NUM_POINTS)
    root = torch.linalg.cholesky(truth.covariance_matrix)
    white = torch.linalg.solve_triangular(root, (draws - truth.loc).unsqueeze(-1), upper=False)
    white = white.squeeze(-1).detach()
    # entries of the mean and covariance of white noise: sd 1/sqrt(4000) and sqrt(2/4000)
    assert float(white.mean(0).abs().max()) < 5 / 4000**0.5
    covariance = torch.einsum("nri,nrj->rij", white, white) / 4000
    identity = torch.eye(NUM_POINTS, dtype=F64)
    assert float((covariance - identity).abs().max()) < 5 * (2 / 4000) ** 0.5


def test_samples_are_reparametrised():
    kernel = build("matern32")
    process = MarkovGaussianProcess(kernel, TIMES, sites=some_sites(2))
    gradient = torch.autograd.grad(process.rsample().sum(), kernel.raw_lengthscale)[0]
    assert bool(torch.isfinite(gradient).all()) and bool((gradient != 0).all())


def test_observing_is_gaussian_regression():
    kernel, noise = build("matern32"), torch.linspace(0.1, 0.5, NUM_POINTS, dtype=F64)
    y = torch.sin(TIMES).index_fill(0, torch.tensor([3]), torch.nan)
    process, seen = MarkovGaussianProcess(kernel, TIMES, mean=0.3).observe(y, noise), ~y.isnan()
    K = dense(kernel).covariance_matrix
    law = dist.MultivariateNormal(
        torch.full_like(y[seen], 0.3), K[:, seen][:, :, seen] + torch.diag(noise[seen])
    )
    torch.testing.assert_close(process.log_normalizer, law.log_prob(y[seen]))
    gain = K[:, :, seen] @ torch.linalg.inv(law.covariance_matrix)
    torch.testing.assert_close(process.mean, 0.3 + gain @ (y[seen] - 0.3))


def test_a_guide_at_nearly_equal_times_has_the_gradient_of_the_dense_one():
    kernel = MaternKernel(1.5)
    times = torch.tensor([0.0, 0.5, 0.5 + 1e-4, 0.5 + 1.1e-4, 1.0, 1.7], dtype=F64)
    assert choose_method(kernel.transitions(times)).method == "parallel"
    y = torch.sin(3 * times).requires_grad_()
    noise = torch.linspace(0.2, 0.4, 6, dtype=F64).requires_grad_()
    leaves = [y, noise, kernel.raw_lengthscale]
    prior = MarkovGaussianProcess(kernel, times)
    process = prior.observe(y, noise)
    weight = torch.cos(5 * times)
    ours = (weight * process.mean).sum() + kl_divergence(process, prior)
    K = kernel(times).to_dense()
    gain = torch.linalg.solve(K + torch.diag(noise), K).mT
    mean, spread = gain @ y, torch.eye(6, dtype=F64) - gain  # spread = Sigma K^-1
    # KL(q, p) with K^-1 applied in closed form, since K itself is nearly singular
    quadratic = y @ gain.mT @ torch.linalg.solve(K + torch.diag(noise), y)
    logdet = torch.logdet(K + torch.diag(noise)) - noise.log().sum()
    divergence = 0.5 * (spread.trace() + quadratic - 6 + logdet)
    theirs = (weight * mean).sum() + divergence
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)
    pairs = zip(*(torch.autograd.grad(value, leaves) for value in (ours, theirs)), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draw = MarkovGaussianProcess(kernel, times).observe(y, noise).rsample()
    drawn = torch.autograd.grad(draw.sum(), leaves)
    assert all(bool(torch.isfinite(g).all()) for g in drawn)


@pytest.mark.parametrize("name", NAMES)
def test_conditional_equals_dense_interpolation(name):
    kernel = build(name)
    process = MarkovGaussianProcess(kernel, TIMES, mean=0.3)
    value = 0.3 + torch.sin(TIMES).expand(2, -1)
    new = torch.tensor([0.2, 6.0, 0.05, 1.7, 0.3], dtype=F64)
    mean, variance = process.conditional(value, new)
    K, cross = kernel(TIMES).to_dense(), kernel(new, TIMES).to_dense()
    gain = torch.linalg.solve(K, cross.mT).mT
    truth = 0.3 + (gain @ (value - 0.3).unsqueeze(-1))[..., 0]
    truth_variance = kernel(new, diag=True) - (gain * cross).sum(-1)
    torch.testing.assert_close(mean, truth, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(variance, truth_variance, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(mean[:, 4], value[:, 1])


def test_expand_and_plates_in_a_pyro_model():
    kernel = build("matern32")

    def model(make):
        with pyro.plate("components", 2):
            pyro.sample("f", make())

    value = torch.sin(TIMES).expand(2, -1)
    conditioned = poutine.condition(model, data={"f": value})
    ours, theirs = (
        poutine.trace(conditioned).get_trace(make).log_prob_sum()
        for make in (lambda: MarkovGaussianProcess(kernel, TIMES), lambda: dense(kernel))
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-8)
    expanded = MarkovGaussianProcess(kernel, TIMES, sites=some_sites(2)).expand((5, 2))
    assert expanded.rsample((3,)).shape == (3, 5, 2, NUM_POINTS)
    assert expanded.log_prob(value).shape == (5, 2)
    assert expanded.mean.shape == expanded.variance.shape == (5, 2, NUM_POINTS)


def test_loss_is_the_same_for_one_and_many_particles():
    kernel, sites = build("matern32"), some_sites(2)

    def model():
        with pyro.plate("components", 2):
            f = pyro.sample("f", MarkovGaussianProcess(kernel, TIMES))
        with pyro.plate("points", NUM_POINTS):
            pyro.sample("y", dist.Normal(f.sum(-2), 0.5), obs=torch.cos(TIMES))

    def guide():
        with pyro.plate("components", 2):
            pyro.sample("f", MarkovGaussianProcess(kernel, TIMES, sites=sites))

    losses = []
    for num_particles, vectorize in ((1, False), (64, True)):
        elbo = Trace_ELBO(
            num_particles=num_particles, vectorize_particles=vectorize, max_plate_nesting=1
        )
        repeats = 64 // num_particles
        with torch.random.fork_rng():
            torch.manual_seed(0)
            losses.append(sum(elbo.loss(model, guide) for _ in range(repeats)) / repeats)
    assert losses[0] == pytest.approx(losses[1], rel=0.15)


def test_nuts_recovers_the_conjugate_posterior():
    kernel, times = MaternKernel(0.5), TIMES[:4]
    y = torch.sin(times)

    def model():
        f = pyro.sample("f", MarkovGaussianProcess(kernel, times))
        pyro.sample("y", dist.Normal(f, 0.5).to_event(1), obs=y)

    for parameter in kernel.parameters():
        parameter.requires_grad_(False)
    with torch.random.fork_rng():
        pyro.set_rng_seed(0)
        mcmc = MCMC(NUTS(model), num_samples=150, warmup_steps=50, disable_progbar=True)
        mcmc.run()
    K = kernel(times).to_dense()
    truth = K @ torch.linalg.solve(K + 0.25 * torch.eye(4, dtype=F64), y)
    draws = mcmc.get_samples()["f"]
    assert float(((draws.mean(0) - truth) / draws.std(0)).abs().max()) < 0.5


def test_bad_arguments_are_refused_with_a_remedy():
    kernel = MaternKernel(1.5)
    with pytest.raises(DataError, match=r"times: got a decrease.*Remedy: sort"):
        MarkovGaussianProcess(kernel, TIMES.flip(0))
    with pytest.raises(DataError, match=r"positions 2 and 3.*Remedy: use torch.unique"):
        MarkovGaussianProcess(kernel, torch.tensor([0.0, 1.0, 2.0, 2.0]))
    with pytest.raises(ShapeError, match=r"times: got \(2, 3\)"):
        MarkovGaussianProcess(kernel, torch.rand(2, 3))
    with pytest.raises(ShapeError, match="one scalar site per coordinate"):
        MarkovGaussianProcess(kernel, TIMES[:4], sites=some_sites())
    with pytest.raises(ConfigurationError, match="processes with one prior"):
        kl_divergence(
            MarkovGaussianProcess(kernel, TIMES), MarkovGaussianProcess(MaternKernel(0.5), TIMES)
        )
    with pytest.raises(NotPositiveDefiniteError, match="determined by the earlier ones"):
        MarkovGaussianProcess(CosineKernel(), TIMES).log_prob(torch.cos(TIMES))
    with pytest.raises(DataError, match="new_times"):
        MarkovGaussianProcess(kernel, TIMES).conditional(TIMES, torch.tensor([float("inf")]))
    with pytest.raises(ConfigurationError, match="'sequential'"):
        process = MarkovGaussianProcess(kernel, TIMES)
        log_density(process.transitions, process.output_map, TIMES, method="dense")


def test_a_kernel_trained_between_two_processes_makes_two_priors():
    kernel = MaternKernel(1.5)
    times = torch.arange(4.0)
    first = MarkovGaussianProcess(kernel, times)
    kernel.lengthscale = 3.0
    second = MarkovGaussianProcess(kernel, times)
    with pytest.raises(ConfigurationError, match="one prior"):
        kl_divergence(first, second)


def test_variance_is_that_of_the_density():
    kernel = MarkovScaleKernel(MaternKernel(0.5))
    process = MarkovGaussianProcess(kernel, torch.zeros(1))
    before = process.variance.clone()
    kernel.outputscale = 9.0
    torch.testing.assert_close(process.variance, before)
    like = torch.distributions.Normal(torch.zeros(1).double(), before.sqrt())
    value = torch.tensor([0.7], dtype=torch.float64)
    torch.testing.assert_close(process.log_prob(value), like.log_prob(value)[0])
