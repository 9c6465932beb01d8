"""The Pyro model against a dense evaluation, and its Markov guide against coordinate updates."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoDelta

from probkit.errors import ConfigurationError, ShapeError
from probkit.infer import SVI, param_scope, pyro_seed
from probkit.kernels import kernel_from_name
from probkit.tensor import FunctionalTucker
from probkit.tensor.guide import MarkovGuide
from probkit.tensor.model import functional_tucker_model, tucker_function

F64 = torch.float64
SIZES = (5, 6, 4)
UNKNOWNS = ("factor_0", "factor_1", "factor_2", "core", "intercept", "tau", "df", "dispersion")
LIKELIHOODS = ("gaussian", "student_t", "poisson", "bernoulli", "negative_binomial")


def setting(structure="tucker", likelihood="gaussian", sizes=SIZES):
    ranks = (2, 3, 2) if structure == "tucker" else (2, 2, 2)
    generator = torch.Generator().manual_seed(0)
    grids = [torch.rand(d, generator=generator, dtype=F64).sort().values for d in sizes]
    kernels = [kernel_from_name("matern32", num_components=r) for r in ranks[: len(sizes)]]
    return {
        "grids": grids,
        "kernels": kernels,
        "structure": structure,
        "likelihood": likelihood,
    }


def entries(likelihood="gaussian", count=20, sizes=SIZES):
    generator = torch.Generator().manual_seed(1)
    index = torch.stack([torch.randint(0, d, (count,), generator=generator) for d in sizes], 1)
    y = torch.randn(count, generator=generator, dtype=F64)
    if likelihood == "bernoulli":
        y = (y > 0).double()
    elif likelihood in ("poisson", "negative_binomial"):
        y = torch.poisson(y.exp(), generator=generator)
    return index, y


def dense_surface(factors, core, intercept, index, structure):
    """f by loops over the full core."""
    f = torch.full((len(index),), float(intercept), dtype=F64)
    if structure == "cp":
        core = torch.diag_embed(torch.diag_embed(core))
        core = core * torch.eye(len(core), dtype=F64)[:, None, :]
    for n, rows in enumerate(index.tolist()):
        for a, b, c in torch.cartesian_prod(*[torch.arange(r) for r in core.shape]).tolist():
            product = factors[0][a, rows[0]] * factors[1][b, rows[1]] * factors[2][c, rows[2]]
            f[n] += core[a, b, c] * product
    return f


def priors():
    numbers = torch.tensor([0.0, 0.7, 10.0, 1e-3, 2.0, 0.1], dtype=F64)
    zero, core_sd, ten, small, two, tenth = numbers
    return {
        "core": dist.Normal(zero, core_sd),
        "intercept": dist.Normal(zero, ten),
        "tau": dist.Gamma(small, small),
        "df": dist.Gamma(two, tenth),
        "dispersion": dist.LogNormal(ten.log(), two),
    }


def dense_likelihood(likelihood, y, f, values):
    if likelihood == "gaussian":
        return torch.distributions.Normal(f, values["tau"] ** -0.5).log_prob(y)
    if likelihood == "student_t":
        return torch.distributions.StudentT(values["df"], f, values["tau"] ** -0.5).log_prob(y)
    if likelihood == "poisson":
        return y * f - f.exp() - torch.lgamma(y + 1)
    if likelihood == "bernoulli":
        return y * f - torch.log1p(f.exp())
    r, mu = values["dispersion"], f.exp()
    count = torch.lgamma(y + r) - torch.lgamma(r) - torch.lgamma(y + 1)
    return count + r * torch.log(r / (r + mu)) + y * torch.log(mu / (r + mu))


def values_of(guide, index, y):
    nodes = poutine.trace(guide).get_trace(index, y).nodes
    return {n: s["value"].detach() for n, s in nodes.items() if s["type"] == "sample"}


@pytest.mark.parametrize("structure", ["tucker", "cp"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_log_density_is_that_of_the_dense_model(structure, likelihood):
    options = setting(structure, likelihood)
    index, y = entries(likelihood)
    with param_scope(), pyro_seed(0):
        values = values_of(MarkovGuide(num_entries=20, **options), index, y)
    model = pyro.condition(partial(functional_tucker_model, core_sd=0.7, **options), values)
    trace = poutine.trace(model).get_trace(index, y)

    expected = torch.zeros((), dtype=F64)
    for k, (grid, kernel) in enumerate(zip(options["grids"], options["kernels"], strict=True)):
        covariance = kernel(grid).to_dense().detach()
        prior = dist.MultivariateNormal(torch.zeros(len(grid), dtype=F64), covariance)
        expected = expected + prior.log_prob(values[f"factor_{k}"]).sum()
    for name, prior in priors().items():
        if name in values:
            expected = expected + prior.log_prob(values[name]).sum()
    factors = [values[f"factor_{k}"] for k in range(3)]
    f = dense_surface(factors, values["core"], values["intercept"], index, structure)
    expected = expected + dense_likelihood(likelihood, y, f, values).sum()
    assert float(trace.log_prob_sum().detach()) == pytest.approx(
        float(expected), rel=1e-9, abs=1e-8
    )


@pytest.mark.parametrize("structure", ["tucker", "cp"])
@pytest.mark.parametrize("likelihood", ["student_t", "negative_binomial"])
def test_vectorised_particles_have_the_densities_of_single_ones(structure, likelihood):
    options, particles = setting(structure, likelihood), 3
    index, y = entries(likelihood)
    model = partial(functional_tucker_model, **options)
    with param_scope(), pyro_seed(0):
        guide = MarkovGuide(num_entries=20, **options)
        with pyro.plate("particles", particles, dim=-2):
            q = poutine.trace(guide).get_trace(index, y)
            p = poutine.trace(poutine.replay(model, trace=q)).get_trace(index, y)
        together = p.log_prob_sum() - q.log_prob_sum()
        separate = torch.zeros((), dtype=F64)
        for particle in range(particles):
            values = {}
            for name, site in q.nodes.items():
                if name in UNKNOWNS:
                    depth = site["fn"].event_dim + (1 if name.startswith("factor") else 0)
                    value = site["value"][particle]
                    values[name] = value.reshape(value.shape[value.dim() - depth :])
            conditioned = poutine.trace(pyro.condition(model, values)).get_trace(index, y)
            separate = separate + conditioned.log_prob_sum()
        separate = separate - q.log_prob_sum()
    assert float(together.detach()) == pytest.approx(float(separate.detach()), rel=1e-10)


def test_loss_is_the_same_with_one_and_many_vectorised_particles():
    options = setting()
    index, y = entries()
    model = partial(functional_tucker_model, noise_prior=(2.0, 1.0), **options)
    with param_scope(), pyro_seed(0):
        guide = AutoDelta(model)
        single = Trace_ELBO().loss(model, guide, index, y)
        many = Trace_ELBO(4, vectorize_particles=True, max_plate_nesting=1).loss(
            model, guide, index, y
        )
    assert many == pytest.approx(single, rel=1e-10)


def test_subsampling_is_unbiased():
    options = setting(sizes=SIZES[:2])
    index, y = entries(sizes=SIZES[:2], count=12)
    with param_scope(), pyro_seed(0):
        values = values_of(MarkovGuide(num_entries=12, **options), index, y)
        model = pyro.condition(partial(functional_tucker_model, **options), values)
        full = poutine.trace(model).get_trace(index, y).log_prob_sum().detach()
        draws = []
        for _ in range(60):
            nodes = poutine.trace(partial(model, subsample_size=1)).get_trace(index, y)
            draws.append(
                (int(nodes.nodes["entries"]["value"]), float(nodes.log_prob_sum().detach()))
            )
    each = dict(draws)
    assert sorted(each) == list(range(12))
    assert sum(each.values()) / 12 == pytest.approx(float(full), rel=1e-10)


def test_samples_data_from_the_prior():
    model = partial(functional_tucker_model, noise_prior=(2.0, 1.0), **setting())
    index, _ = entries()
    with pyro_seed(0):
        nodes = poutine.trace(model).get_trace(index, None).nodes
    assert nodes["y"]["value"].shape == (20,)
    assert nodes["factor_1"]["value"].shape == (3, 6)


def test_learned_kernels_are_registered():
    index, y = entries()
    model = partial(functional_tucker_model, learn_kernels=True, **setting())
    with param_scope(), pyro_seed(0):
        poutine.trace(model).get_trace(index, y)
        names = set(pyro.get_param_store().keys())
    assert len(names) == 3
    assert all(name.startswith("kernel_") for name in names)


def test_impossible_settings_are_refused():
    index, y = entries()
    options = setting()
    with pytest.raises(ConfigurationError, match="one of tucker, cp"):
        functional_tucker_model(index, y, **{**options, "structure": "tt"})
    with pytest.raises(ConfigurationError, match="one of gaussian"):
        functional_tucker_model(index, y, **{**options, "likelihood": "normal"})
    with pytest.raises(ShapeError, match="one grid, one kernel"):
        functional_tucker_model(index[:, :2], y, **options)
    with pytest.raises(ShapeError, match="num_components"):
        functional_tucker_model(index, y, **{**options, "structure": "cp"})


@pytest.mark.parametrize("structure", ["tucker", "cp"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_svi_raises_the_elbo_under_every_likelihood(structure, likelihood):
    options = setting(structure, likelihood)
    index, y = entries(likelihood, count=60)
    guide = MarkovGuide(num_entries=60, **options)
    engine = SVI(
        steps=25,
        learning_rate=0.05,
        window=5,
        batch_size=30,
        guide=guide,
        num_particles=8,
        vectorize_particles=True,
        num_posterior_samples=3,
        num_diagnostic_samples=0,
    )
    result = engine.fit(partial(functional_tucker_model, **options), (index, y), seed=0)
    objective = result.history["objective"]
    assert objective[-5:].mean() > objective[:5].mean()
    assert set(result.posterior.mean()) <= set(UNKNOWNS)


def small_problem():
    """Three observations of each cell of a 7 x 8 grid, standardised."""
    generator = torch.Generator().manual_seed(3)
    index = torch.cartesian_prod(torch.arange(7), torch.arange(8)).repeat(3, 1)
    x = index.double() / torch.tensor([6.0, 7.0], dtype=F64)
    noise = torch.randn(len(x), generator=generator, dtype=F64)
    y = (1 + torch.sin(4 * x[:, 0])) * torch.cos(3 * x[:, 1]) + 0.4 * noise
    return index, x, (y - y.mean()) / y.std(unbiased=False)


@pytest.mark.parametrize(("batch_size", "tolerance"), [(None, 0.1), (84, 0.2)])
def test_svi_with_the_markov_guide_agrees_with_coordinate_updates(batch_size, tolerance):
    index, x, y = small_problem()
    updates = FunctionalTucker(
        1, kernels="matern12", likelihood="gaussian", calibrate=False, num_starts=1
    )
    posterior = updates.fit(x, y).result_.posterior
    mean, variance = posterior.moments(x[:56])
    state = posterior.tensors()

    kernels = [kernel_from_name("matern12", num_components=1) for _ in range(2)]
    for k, kernel in enumerate(kernels):
        for name, parameter in kernel.named_parameters():
            parameter.requires_grad_(False).copy_(state[f"mode{k}.kernel.{name}"])
    options = {"grids": [state["grid0"], state["grid1"]], "kernels": kernels}
    core_sd = float(state["mode0.alpha"] * state["mode1.alpha"]) ** -0.5
    guide = MarkovGuide(num_entries=len(y), **options)
    engine = SVI(
        steps=300,
        learning_rate=0.1,
        decay=0.02,
        window=50,
        batch_size=batch_size,
        guide=guide,
        num_particles=16,
        vectorize_particles=True,
        num_posterior_samples=2,
        num_diagnostic_samples=0,
    )
    engine.fit(partial(functional_tucker_model, core_sd=core_sd, **options), (index, y), seed=0)

    num_draws = 4000
    with torch.no_grad(), param_scope(), pyro_seed(1), pyro.plate("draws", num_draws, dim=-2):
        draws = values_of(guide, index, y)
    factors = [draws["factor_0"], draws["factor_1"]]
    f = tucker_function(factors, draws["core"], draws["intercept"], index[:56])
    sd = variance.sqrt()
    error = (f.mean(0) - mean) / sd
    ratio = f.std(0) / sd
    assert float(error.square().mean().sqrt()) < tolerance
    assert float(ratio.log().square().mean().sqrt()) < tolerance
