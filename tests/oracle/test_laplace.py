"""Laplace, MAP, Gauss–Newton and EM against closed forms and against one another."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import probkit
from probkit.errors import ConfigurationError, NumericalError
from probkit.infer import EM, MAP, GaussNewton, Laplace, PointEstimate, Status
from probkit.infer.densities import pyro_density
from probkit.infer.gauss_newton import Linearization, dense_linearization
from probkit.infer.mode_search import ModeSearch
from probkit.infer.pyro_data import ModelArguments
from probkit.infer.quasi_newton import Memory, direction, remember
from probkit.linalg.block_tridiagonal import BlockTridiagonalLinearOperator
from tests.toy_models import (
    Chain,
    normal_data,
    normal_mean,
    normal_mean_answer,
    regression,
)

Y = normal_data()
MEAN, SD, EVIDENCE = normal_mean_answer(Y)
DOUBLE = torch.float64


def counts(y):
    """Gamma prior, Poisson data: conjugate, but not Gaussian."""
    rate = pyro.sample("rate", dist.Gamma(torch.tensor(2.0, dtype=DOUBLE), 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Poisson(rate), obs=y)


def branching(y):
    """Which way it goes depends on the value of an unknown: it cannot be mapped."""
    mean = pyro.sample("mean", dist.Normal(torch.zeros((), dtype=DOUBLE), 2.0))
    scale = 1.0 if float(mean.detach()) > -1e9 else 2.0
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, scale), obs=y)


@pytest.mark.parametrize("model", [normal_mean, branching])
def test_laplace_is_exact_for_a_gaussian(model):
    result = probkit.fit(model, Y, engine=Laplace(), seed=1)
    assert result.status is Status.CONVERGED
    assert float(result.state["flat"]) == pytest.approx(MEAN, abs=1e-9)
    assert result.diagnostics["log_evidence_laplace"] == pytest.approx(EVIDENCE, abs=1e-9)
    assert result.diagnostics["log_evidence"] == pytest.approx(EVIDENCE, abs=1e-9)
    assert result.diagnostics["khat"] == -math.inf
    draws = result.posterior.draws["mean"]
    assert float(draws.mean()) == pytest.approx(MEAN, abs=4 * SD / 1000**0.5)
    assert float(draws.std()) == pytest.approx(SD, abs=4 * SD / 2000**0.5)


def test_laplace_mode_and_curvature_of_a_transformed_unknown():
    """In u = log rate the posterior Gamma(a, b) has its mode at log a/b and curvature a."""
    y = torch.tensor([3.0, 5.0, 1.0, 2.0], dtype=DOUBLE)
    a, b = 2 + float(y.sum()), 1.0 + len(y)
    result = probkit.fit(counts, y, engine=Laplace(num_diagnostic_samples=4000), seed=0)
    assert float(result.state["flat"]) == pytest.approx(math.log(a / b), abs=1e-7)
    u = result.posterior.draws["rate"].log()
    assert float(u.std()) == pytest.approx(a**-0.5, abs=4 * a**-0.5 / 2000**0.5)
    exact = 2 * 0 + math.lgamma(a) - a * math.log(b) - float((y + 1).lgamma().sum())
    assert result.diagnostics["log_evidence"] == pytest.approx(exact, abs=0.01)
    assert result.diagnostics["khat"] < 0.7
    corrected = float(result.importance.mean()["rate"])
    assert corrected == pytest.approx(a / b, abs=4 * a**0.5 / b / 4000**0.5)


def test_hessian_agrees_with_the_dense_precision():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(20, 3, generator=generator, dtype=DOUBLE)
    y = torch.randn(20, generator=generator, dtype=DOUBLE)
    density = pyro_density(regression, ModelArguments.of((x, y)))
    found = density.curvature(torch.zeros(3, dtype=DOUBLE))
    assert torch.allclose(found, torch.eye(3, dtype=DOUBLE) + x.T @ x, atol=1e-10)


def test_structured_density_keeps_its_operator():
    """A chain of unknowns: the same mode, evidence and sds as by dense algebra."""
    chain = Chain(torch.sin(torch.arange(30, dtype=DOUBLE) / 4))
    result = probkit.fit(chain, seed=0)
    assert result.provenance["reason"].startswith("auto: the model is a smooth density")
    assert isinstance(chain.curvature(chain.y), BlockTridiagonalLinearOperator)
    precision = chain.curvature(chain.y).to_dense()
    mean = torch.linalg.solve(precision, 4 * chain.y)
    assert torch.allclose(result.state["flat"], mean, atol=1e-8)
    sd = torch.linalg.inv(precision).diagonal().sqrt()
    assert torch.allclose(result.posterior.sd()["x"], sd, rtol=5 / 2000**0.5)
    size = len(chain.y)
    evidence = -float(chain.value_and_gradient(mean)[0])
    evidence += (size * math.log(2 * math.pi) - float(torch.logdet(precision))) / 2
    assert result.diagnostics["log_evidence_laplace"] == pytest.approx(evidence, abs=1e-8)


def test_no_curvature_is_a_status_and_leaves_no_spread():
    def flat(y):
        a = pyro.sample("a", dist.Normal(torch.zeros((), dtype=DOUBLE), 1.0).mask(False))
        b = pyro.sample("b", dist.Normal(torch.zeros((), dtype=DOUBLE), 1.0))
        pyro.sample("y", dist.Normal(b, 1.0), obs=y + 0 * a)

    result = probkit.fit(flat, torch.ones((), dtype=DOUBLE), engine=Laplace())
    assert result.status is Status.NOT_PSD
    assert "not positive definite" in result.detail
    assert result.posterior.num_draws == 1
    assert "no uncertainty" in result.diagnostics["warnings"][0]


def test_discrete_unknowns_are_refused_by_name():
    def model():
        pyro.sample("which", dist.Bernoulli(torch.tensor(0.5, dtype=DOUBLE)))

    with pytest.raises(ConfigurationError, match="'which'"):
        probkit.fit(model, engine=Laplace())


def test_models_that_are_random_outside_their_sites_are_refused():
    def noisy():
        pyro.sample("x", dist.Normal(torch.randn((), dtype=DOUBLE), 1.0))

    with pytest.raises(ConfigurationError, match="'x'.*different|different.*'x'"):
        probkit.fit(noisy, engine=Laplace())


def test_a_density_that_is_nowhere_finite_names_its_site():
    def outside(y):
        rate = pyro.sample("rate", dist.Gamma(torch.tensor(2.0, dtype=DOUBLE), 1.0))
        pyro.factor("broken", torch.nan * rate)
        pyro.sample("y", dist.Normal(rate, 1.0), obs=y)

    with pytest.raises(NumericalError, match="site 'broken'"):
        probkit.fit(outside, torch.tensor(1.0, dtype=DOUBLE), engine=MAP())


def test_map_is_the_mode_of_the_unknowns_and_not_of_their_logarithms():
    y = torch.tensor([3.0, 5.0, 1.0, 2.0], dtype=DOUBLE)
    own = probkit.fit(counts, y, engine=MAP())
    free = probkit.fit(counts, y, engine=MAP(unconstrained=True))
    assert float(own.posterior.point()["rate"]) == pytest.approx(12 / 5, abs=1e-6)
    assert float(free.posterior.point()["rate"]) == pytest.approx(13 / 5, abs=1e-6)
    assert own.status is Status.CONVERGED


class TwoModes:
    """(x - 1)^2 - z^2 / 2 + z^4 / 4 from z = 0: a saddle at x = 1, modes at z = +-1."""

    def initial(self, generator):
        return torch.tensor([-0.5, 0.0], dtype=DOUBLE)

    def values(self, flat):
        x, z = flat.unbind(-1)
        return (x - 1) ** 2 - z**2 / 2 + z**4 / 4

    def value_and_gradient(self, flat):
        return self.values(flat), torch.stack([2 * (flat[0] - 1), flat[1] ** 3 - flat[1]])

    def curvature(self, flat):
        return torch.diag(torch.stack([torch.full((), 2.0, dtype=DOUBLE), 3 * flat[1] ** 2 - 1]))

    def sites(self, flat):
        return {"x": flat[:, 0], "z": flat[:, 1]}


@pytest.mark.parametrize("newton", [False, True])
def test_a_saddle_is_left(newton):
    search = ModeSearch(TwoModes(), 1e-6, newton=newton)
    state = search.initialize(torch.Generator())
    for _ in range(50):
        state, info = search.step(state, torch.Generator())
        if info.converged or info.metrics["stalled"]:
            break
    assert info.converged
    assert torch.allclose(state["flat"].abs(), torch.ones(2, dtype=DOUBLE), atol=1e-6)


def test_map_says_that_a_direction_is_flat():
    def flat(y):
        a = pyro.sample("a", dist.Normal(torch.zeros((), dtype=DOUBLE), 1.0).mask(False))
        b = pyro.sample("b", dist.Normal(torch.zeros((), dtype=DOUBLE), 1.0))
        pyro.sample("y", dist.Normal(b, 1.0), obs=y + 0 * a)

    result = probkit.fit(flat, torch.ones((), dtype=DOUBLE), engine=MAP())
    assert result.status is Status.CONVERGED
    assert result.diagnostics["least_curvature"] == 0
    assert "not positive definite" in result.diagnostics["warnings"][1]


def test_map_is_never_called_a_posterior(tmp_path):
    result = probkit.fit(normal_mean, Y, engine=MAP())
    for word in ("mean", "sd"):
        with pytest.raises(ConfigurationError, match="point estimate"):
            getattr(result.posterior, word)()
    assert list(result.to_datatree().children) == ["point_estimate"]
    loaded = type(result).load(result.save(tmp_path))
    assert isinstance(loaded.posterior, PointEstimate)
    assert torch.equal(loaded.posterior.point()["mean"], result.posterior.point()["mean"])


@pytest.mark.parametrize("num_rows", [100, 20_000])
def test_single_precision_ends_at_its_own_rounding(num_rows):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(num_rows, 2, generator=generator)
    y = x @ torch.tensor([1.0, -2.0]) + 0.5 * torch.randn(num_rows, generator=generator)

    def model(x, y):
        slope = pyro.sample("slope", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(x @ slope, x.new_tensor(0.5)), obs=y)

    exact = probkit.fit(model, (x.double(), y.double()), engine=Laplace())
    mode, sd = exact.posterior.mean()["slope"], exact.posterior.sd()["slope"]
    for engine in (MAP(), Laplace()):
        result = probkit.fit(model, (x, y), engine=engine)
        found = result.posterior.point() if isinstance(engine, MAP) else result.posterior.mean()
        assert result.status is Status.CONVERGED
        assert float(((found["slope"].double() - mode) / sd).abs().max()) < 0.1


def test_map_of_a_hard_valley():
    """Rosenbrock's valley: L-BFGS must not need thousands of steps."""

    def valley():
        z = pyro.sample("z", dist.Normal(torch.zeros(2, dtype=DOUBLE), 1.0).mask(False).to_event(1))
        pyro.factor("f", -((1 - z[0]) ** 2) - 100 * (z[1] - z[0] ** 2) ** 2)

    result = probkit.fit(valley, engine=MAP(), seed=2)
    assert torch.allclose(result.posterior.point()["z"], torch.ones(2, dtype=DOUBLE), atol=1e-5)
    assert result.diagnostics["num_steps"] < 100


class Circle:
    """Distances of a point to three beacons: nonlinear, overdetermined, noise sd .1."""

    beacons = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 3.0]], dtype=DOUBLE)

    def __init__(self, structured: bool = False):
        self.structured = structured

    def initialize(self, generator):
        return torch.tensor([20.0, -15.0], dtype=DOUBLE)

    def residual(self, z):
        seen = (self.beacons - torch.tensor([1.0, 2.0], dtype=DOUBLE)).norm(dim=-1)
        shift = torch.tensor([0.05, -0.05, 0.1], dtype=DOUBLE)
        return ((self.beacons - z).norm(dim=-1) - seen - shift) / 0.1

    def linearize(self, z):
        found = dense_linearization(self.residual, z)
        if not self.structured:
            return found

        def normal(damping):
            return BlockTridiagonalLinearOperator(
                found.normal(damping)[None], torch.zeros(0, 2, 2, dtype=DOUBLE)
            )

        return Linearization(found.residual, found.gradient, normal)


@pytest.mark.parametrize("structured", [False, True])
def test_gauss_newton_from_far_away(structured):
    model = Circle(structured)
    result = probkit.fit(model, seed=0)
    assert result.status is Status.CONVERGED
    assert result.provenance["engine"] == "GaussNewton"
    found = model.linearize(result.state["flat"])
    assert float(found.gradient.norm()) < 1e-5
    # one of the two sides of the first two beacons: the third tells them apart
    assert torch.allclose(result.state["flat"], torch.tensor([1.0, 2.0], dtype=DOUBLE), atol=0.2)
    covariance = torch.linalg.inv(Circle().linearize(result.state["flat"]).normal(0.0))
    sd = result.posterior.sd()["z"]
    assert torch.allclose(sd, covariance.diagonal().sqrt(), rtol=5 / 2000**0.5)
    assert result.diagnostics["khat"] < 0.7


def test_gauss_newton_takes_one_step_for_a_linear_problem():
    class Linear(Circle):
        a = torch.tensor([[1.0, 0.2], [0.1, 2.0], [1.0, 1.0]], dtype=DOUBLE)

        def residual(self, z):
            return self.a @ z - torch.tensor([1.0, 2.0, 4.0], dtype=DOUBLE)

    result = probkit.fit(Linear(), engine=GaussNewton())
    answer = torch.linalg.lstsq(Linear.a, torch.tensor([1.0, 2.0, 4.0], dtype=DOUBLE)[:, None])
    assert torch.allclose(result.state["flat"], answer.solution[:, 0], atol=1e-10)
    assert result.diagnostics["num_steps"] <= 5
    assert result.diagnostics["khat"] == -math.inf


def test_gauss_newton_says_that_a_direction_is_undetermined():
    class Sum(Circle):
        def residual(self, z):
            return (z.sum() - 1).reshape(1)

    assert probkit.fit(Sum(), engine=GaussNewton()).status is Status.NOT_PSD


class BrokenScale:
    """An M-step that goes the wrong way."""

    def initialize(self, generator):
        return {"scale": torch.tensor(3.0, dtype=DOUBLE)}

    def e_step(self, state):
        return {}, -float((state["scale"] - 3) ** 2) - 1

    def m_step(self, state, moments):
        return {"scale": state["scale"] + 0.5}

    def posterior(self, state):
        return PointEstimate(state)


def test_em_reports_a_falling_objective():
    result = probkit.fit(BrokenScale(), engine=EM(max_steps=5))
    assert result.diagnostics["num_falls"] == 4
    assert "fell after 4 steps" in result.diagnostics["warnings"][0]
    auto = probkit.fit(BrokenScale()).provenance
    assert auto["engine"] == "EM" and auto["reason"].startswith("auto: ")


def test_quasi_newton_direction_is_exact_after_enough_steps():
    """With d conjugate pairs of a quadratic, the recursion is the inverse Hessian."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(4, 4, generator=generator, dtype=DOUBLE)
    hessian = root @ root.T + torch.eye(4, dtype=DOUBLE)
    vectors = torch.linalg.eigh(hessian)[1].T
    memory = Memory(torch.zeros(6, 4, dtype=DOUBLE), torch.zeros(6, 4, dtype=DOUBLE), 0)
    for vector in vectors:
        memory = remember(memory, vector, hessian @ vector)
    gradient = torch.randn(4, generator=generator, dtype=DOUBLE)
    expected = -torch.linalg.solve(hessian, gradient)
    assert torch.allclose(direction(memory, gradient), expected, atol=1e-10)
    assert remember(memory, vectors[0], -vectors[0]).filled == memory.filled == 4
