"""Many-chain HMC against closed forms, itself run eagerly, and models it must not trust."""

from __future__ import annotations

from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch

from probkit.errors import ConfigurationError, ShapeError
from probkit.infer import HMC, Status
from probkit.infer.hmc_diagnostics import sampler_status, stuck_chains
from probkit.infer.many_chains import ManyChains
from probkit.infer.metric import empty_moments, factor_of, join_moments
from probkit.infer.native.lowering import Unsupported
from probkit.infer.potential import flat_potential
from probkit.infer.pyro_data import ModelArguments
from probkit.infer.sampling_diagnostics import mixing_diagnostics, mixing_status
from probkit.infer.trajectories import Chains, NativeTrajectories, Noise, eager_trajectories
from tests import toy_models

Y = toy_models.normal_data()
EAGER = HMC(num_samples=60, num_warmup=60, num_chains=8, compile="off")


def scales(y):
    """A positive and a bounded unknown, a deterministic site and a factor."""
    zero = torch.zeros((), dtype=y.dtype)
    scale = pyro.sample("scale", dist.Gamma(zero + 2.0, 1.0))
    upper = pyro.sample("upper", dist.Uniform(zero, scale))
    pyro.deterministic("ratio", upper / scale)
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(upper, scale), obs=y)


def funnel():
    zero = torch.zeros((), dtype=torch.float64)
    v = pyro.sample("v", dist.Normal(zero, 3.0))
    pyro.sample("x", dist.Normal(torch.zeros(9).double(), (v / 2).exp()).to_event(1))


def branching(y):
    mean = pyro.sample("mean", dist.Normal(torch.zeros((), dtype=y.dtype), 2.0))
    sd = 1.0 if mean > 0 else 2.0
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, sd), obs=y)


def potential_of(model, *data):
    return flat_potential(model, ModelArguments.of(data), torch.Generator().manual_seed(0))


def start_and_noise(potential, count, chains=3):
    generator = torch.Generator().manual_seed(1)
    position = potential.initial(chains, generator)
    momenta = torch.randn(count, chains, potential.size, generator=generator, dtype=torch.float64)
    uniforms = torch.full((count, chains), -1e3, dtype=torch.float64)
    return Chains(position, *potential.value_and_gradient(position)), Noise(momenta, uniforms)


def test_potential_is_the_log_joint_with_its_determinants():
    potential = potential_of(scales, Y)
    z = torch.tensor([[0.3, -0.4]], dtype=torch.float64)
    value, gradient = potential.value_and_gradient(z)
    scale, share = z[0, 0].exp(), torch.sigmoid(z[0, 1])
    expected = dist.Gamma(torch.tensor(2.0).double(), 1.0).log_prob(scale) + scale.log()
    expected = expected - scale.log() + (scale * share * (1 - share)).log()
    expected = expected + dist.Normal(scale * share, scale).log_prob(Y).sum()
    assert float(value) == pytest.approx(-float(expected), rel=1e-12)
    shift = torch.tensor([[1e-5, 0.0], [0.0, 1e-5]], dtype=torch.float64)
    up, _ = potential.value_and_gradient(z + shift)
    down, _ = potential.value_and_gradient(z - shift)
    torch.testing.assert_close(gradient[0], (up - down) / 2e-5, rtol=1e-6, atol=1e-6)
    sites = potential.constrain(z)
    torch.testing.assert_close(sites["ratio"], share[None])


def test_trajectories_are_reversible_and_conserve_energy_to_second_order():
    potential = potential_of(scales, Y)
    chains, noise = start_and_noise(potential, 1)
    run, factor = eager_trajectories(potential), torch.ones(2, dtype=torch.float64)
    chains = chains._replace(position=0.1 * chains.position)
    chains = Chains(chains.position, *potential.value_and_gradient(chains.position))
    there = run(chains, 1e-3, factor, [20], noise)
    back = run(there.chains, 1e-3, factor, [20], noise._replace(momenta=-there.ends))
    torch.testing.assert_close(back.chains.position, chains.position, rtol=1e-9, atol=1e-9)
    half = run(chains, 5e-4, factor, [40], noise)
    order = (there.errors / half.errors).abs().log2()
    assert ((order > 1.8) & (order < 2.2)).all()


@pytest.mark.parametrize("dense", [False, True])
def test_native_trajectories_equal_eager_ones(dense):
    potential = potential_of(scales, Y)
    chains, noise = start_and_noise(potential, 3)
    factor = torch.tensor([0.5, 0.7], dtype=torch.float64)
    if dense:
        factor = torch.tensor([[0.5, 0.0], [0.2, 0.7]], dtype=torch.float64)
    expected = eager_trajectories(potential)(chains, 0.02, factor, [2, 5, 3], noise)
    try:
        native = NativeTrajectories(potential, 3)
    except Unsupported as error:
        # without a compiler the engine must say so and go on eagerly
        result = HMC(num_samples=5, num_warmup=5, compile="on").fit(scales, Y)
        assert str(error) in result.provenance["compile"]["reason"]
        return
    found = native(chains, 0.02, factor, [2, 5, 3], noise)
    for one, other in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("num_chains", [3, 13])
def test_chains_in_step_equal_chains_one_after_another(num_chains):
    """A matrix of data is read once for all chains."""
    x = torch.randn(37, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def linear(y):
        w = pyro.sample("w", dist.Normal(torch.zeros(4).double(), 1.0).to_event(1))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)

    potential = potential_of(linear, x.sum(1))
    assert potential.shares_products
    chains, noise = start_and_noise(potential, 3, num_chains)
    factor = torch.full((4,), 0.3, dtype=torch.float64)
    expected = eager_trajectories(potential)(chains, 0.02, factor, [2, 5, 3], noise)
    try:
        native = NativeTrajectories(potential, num_chains)
    except Unsupported as error:
        assert "compiler" in str(error)
        return
    assert native.note == ""
    found = native(chains, 0.02, factor, [2, 5, 3], noise)
    for one, other in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dense", [False, True])
def test_conjugate_posterior(dense):
    engine = HMC(num_samples=150, num_warmup=100, num_chains=8, dense_mass=dense, compile="off")
    result = engine.fit(toy_models.normal_mean, Y, seed=0)
    mean, sd, _ = toy_models.normal_mean_answer(Y)
    assert result.status is Status.CONVERGED
    error = sd / result.diagnostics["min_ess_bulk"] ** 0.5
    assert abs(float(result.posterior.mean()["mean"]) - mean) < 4 * error
    assert float(result.posterior.sd()["mean"]) == pytest.approx(sd, rel=0.1)


def correlated(y):
    """Forty unknowns, one direction 20 times as wide as the others; y is not looked at."""
    size = 40
    wide = torch.full((size, size), 10.0, dtype=y.dtype) + torch.eye(size, dtype=y.dtype)
    law = dist.MultivariateNormal(torch.zeros(size, dtype=y.dtype), wide)
    pyro.sample("z", law)


def test_automatic_metric_is_dense_where_its_products_are_cheap():
    engine = HMC(num_samples=100, num_warmup=200, num_chains=16, compile="off")
    cost = {}
    for choice in ("auto", False):
        result = replace(engine, dense_mass=choice).fit(correlated, Y, seed=0)
        cost[choice] = result.diagnostics["num_leapfrogs"]
        assert result.diagnostics["min_ess_bulk"] > 800
        assert result.provenance["metric"] == ("dense" if choice == "auto" else "diagonal")
    assert cost["auto"] < 0.5 * cost[False]


@pytest.mark.parametrize("count", [6, 200])
def test_dense_metric_is_the_shrunk_covariance_of_scikit_learn(count):
    sklearn = pytest.importorskip("sklearn.covariance")
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    draws = torch.randn(count, 5, generator=generator, dtype=torch.float64) @ mixing
    factor = factor_of(join_moments(empty_moments(5, True, draws), draws))
    scales = (draws.var(0) * count / (count + 5) + 5e-3 / (count + 5)).sqrt()
    standard = (draws - draws.mean(0)) / draws.std(0, correction=0)
    expected, share = sklearn.oas(standard.numpy(), assume_centered=True)
    assert 0 < share < 1
    found = factor @ factor.mT / torch.outer(scales, scales)
    torch.testing.assert_close(found, torch.as_tensor(expected))


def test_dense_metric_of_draws_that_never_moved_is_diagonal():
    still = torch.ones(4, 3, dtype=torch.float64)
    factor = factor_of(join_moments(empty_moments(3, True, still), still))
    torch.testing.assert_close(factor, torch.diag(factor.diagonal()))
    assert bool((factor.diagonal() > 0).all())


def test_a_single_chain_is_judged_by_its_halves():
    generator = torch.Generator().manual_seed(0)
    steady = torch.randn(1, 401, generator=generator, dtype=torch.float64)
    found = mixing_diagnostics({"x": steady})
    assert mixing_status(found) is Status.CONVERGED
    drifting = steady + torch.linspace(0, 3, 401, dtype=torch.float64)
    found = mixing_diagnostics({"x": drifting})
    assert found["max_r_hat"] > 1.2
    assert mixing_status(found) is Status.NOT_MIXED


def test_funnel_is_flagged():
    result = EAGER.fit(funnel, seed=0)
    assert result.status is Status.NOT_MIXED
    assert result.detail and result.status.remedy


def quartic():
    x = pyro.sample("x", dist.Normal(torch.zeros((), dtype=torch.float64), 1.0))
    pyro.factor("wall", -(x**4))


def test_a_stuck_chain_is_restarted_in_the_warm_up():
    """At x = 1e4 every step that suits the other chains leaves the domain."""
    potential = potential_of(quartic)
    sampler = ManyChains(
        potential,
        eager_trajectories(potential),
        **{"num_chains": 8, "num_warmup": 40, "num_samples": 25, "target_accept": 0.8},
        **{"max_leapfrogs": 20, "dense": False},
    )
    generator = torch.Generator().manual_seed(0)
    state = sampler.initial(generator)
    state["position"][3] = 1e4
    state["value"], state["gradient"] = potential.value_and_gradient(state["position"])
    for _ in range(sampler.num_steps):
        state, _ = sampler.step(state, generator)
    assert float(state["draws"].abs().max()) < 10
    assert state["restarts"].tolist() == [0, 0, 0, 1, 0, 0, 0, 0]
    found = stuck_chains(state["draws"], state["restarts"])
    assert found["never_moved"] == [] and "another chain" in found["warnings"][0]


def test_a_chain_that_never_moved_is_named():
    draws = torch.randn(4, 50, 1, generator=torch.Generator().manual_seed(0))
    draws[2] = 0.3
    found = stuck_chains(draws, torch.zeros(4, dtype=torch.long))
    assert found["warnings"] == ["Chain 2 never moved: all its draws are the same."]
    good = {"max_r_hat": 1.0, "divergences": [0], "num_draws": 50, "e_bfmi": 1.0}
    assert sampler_status({**good, **found}) == (Status.NOT_MIXED, "chain 2 never moved")


def test_what_cannot_be_traced_goes_to_nuts_and_says_why():
    engine = HMC(num_samples=10, num_warmup=10, num_chains=1)
    result = engine.fit(branching, Y, seed=0)
    assert result.provenance["engine"] == "NUTS"
    assert "because the model has no graph" in result.provenance["reason"]


def test_faulty_models_are_named():
    def subsampled(y):
        mean = pyro.sample("mean", dist.Normal(torch.zeros((), dtype=y.dtype), 2.0))
        with pyro.plate("rows", len(y), subsample_size=3) as rows:
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y[rows])

    def no_plate(y):
        pyro.sample("mean", dist.Normal(torch.zeros(len(y), dtype=y.dtype), 2.0))

    def unrecorded(y):
        mean = pyro.sample("mean", dist.Normal(torch.zeros((), dtype=y.dtype), 2.0))
        noise = torch.rand((), dtype=y.dtype)
        pyro.sample("y", dist.Normal(mean + noise, 1.0).expand([len(y)]).to_event(1), obs=y)

    with pytest.raises(ConfigurationError, match="plate 'rows'"):
        EAGER.fit(subsampled, Y)
    with pytest.raises(ShapeError, match="site 'mean'"):
        EAGER.fit(no_plate, Y)
    with pytest.raises(ConfigurationError, match="site 'y'"):
        EAGER.fit(unrecorded, Y)


def test_short_compiled_and_eager_fits_agree():
    means = {}
    for choice in ("on", "off"):
        engine = HMC(num_samples=150, num_warmup=100, num_chains=8, compile=choice)
        result = engine.fit(toy_models.normal_mean, Y, seed=2)
        sd = result.posterior.sd()["mean"] / result.diagnostics["min_ess_bulk"] ** 0.5
        means[choice] = (float(result.posterior.mean()["mean"]), float(sd))
    gap = abs(means["on"][0] - means["off"][0])
    assert gap < 4 * (means["on"][1] ** 2 + means["off"][1] ** 2) ** 0.5
