"""Engines for Pyro models against closed forms; every tolerance is stated in standard errors."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal

import probkit
from probkit.errors import ConfigurationError
from probkit.infer import NUTS, SVI, Batches, Gibbs, Status
from probkit.infer.pyro_data import ModelArguments
from probkit.infer.seeding import param_scope, pyro_seed
from tests.toy_models import (
    ModuleGuide,
    NormalGibbs,
    function_guide,
    normal_data,
    normal_mean,
    normal_mean_answer,
    regression,
)

Y = normal_data()
MEAN, SD, EVIDENCE = normal_mean_answer(Y)


def regression_data(rows=60):
    generator = torch.Generator().manual_seed(8)
    x = torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    x[:, 1] += 2 * x[:, 0]  # correlated covariates: a diagonal guide cannot be exact
    weights = torch.tensor([1.0, -0.5, 0.2], dtype=torch.float64)
    return x, x @ weights + torch.randn(rows, generator=generator, dtype=torch.float64)


def regression_answer(x, y):
    covariance = torch.linalg.inv(torch.eye(3, dtype=x.dtype) + x.T @ x)
    return covariance @ (x.T @ y), covariance


@pytest.mark.parametrize("guide", ["AutoNormal", function_guide, ModuleGuide()])
def test_svi_finds_the_posterior_and_the_evidence(guide):
    engine = SVI(
        steps=600,
        learning_rate=0.05,
        decay=0.01,
        guide=guide,
        num_particles=16,
        vectorize_particles=True,
    )
    result = probkit.fit(normal_mean, {"y": Y}, engine=engine)
    draws = result.posterior.draws["mean"]
    assert draws.shape == (1, 1000)
    # 1000 draws: standard errors SD / sqrt(1000) and SD / sqrt(2000); 4 of them, and 2 % for Adam
    assert float(draws.mean()) == pytest.approx(MEAN, abs=4 * SD / 1000**0.5 + 0.02 * SD)
    assert float(draws.std()) == pytest.approx(SD, abs=4 * SD / 2000**0.5 + 0.02 * SD)
    # the family contains the posterior, so the ELBO is the log evidence
    margin = 4 * result.diagnostics["elbo_se"] + 1e-2
    assert result.diagnostics["elbo"] == pytest.approx(EVIDENCE, abs=margin)
    assert "warnings" not in result.diagnostics


def test_svi_by_minibatches_scales_the_likelihood():
    engine = SVI(steps=1000, learning_rate=0.05, decay=0.01, batch_size=10)
    result = probkit.fit(normal_mean, Y, engine=engine)
    draws = result.posterior.draws["mean"]
    # gradient noise of the minibatches leaves the location within a fraction of a posterior sd
    assert float(draws.mean()) == pytest.approx(MEAN, abs=0.3 * SD)
    assert float(draws.std()) == pytest.approx(SD, rel=0.15)
    assert result.diagnostics["elbo"] == pytest.approx(
        EVIDENCE, abs=4 * result.diagnostics["elbo_se"] + 0.3
    )


def test_full_rank_guide_is_exact_on_correlated_weights():
    x, y = regression_data()
    mean, covariance = regression_answer(x, y)
    engine = SVI(
        steps=800,
        learning_rate=0.05,
        decay=0.01,
        guide=AutoMultivariateNormal,
        num_particles=16,
        vectorize_particles=True,
    )
    result = probkit.fit(regression, (x, y), engine=engine)
    draws = result.posterior.draws["weights"][0]
    assert draws.shape == (1000, 3)
    sd = covariance.diagonal().sqrt()
    assert ((draws.mean(0) - mean).abs() < 4 * sd / 1000**0.5 + 0.05 * sd).all()
    assert draws.T.cov()[0, 1] == pytest.approx(float(covariance[0, 1]), rel=0.25)
    assert result.diagnostics["khat"] < 0.7


def test_khat_warns_of_a_guide_that_misses_the_posterior():
    x, y = regression_data()
    narrow = torch.full((3,), 0.01, dtype=torch.float64)

    def guide(x, y):
        loc = pyro.param("loc", torch.zeros(3, dtype=torch.float64))
        pyro.sample("weights", dist.Normal(loc, narrow).to_event(1))

    engine = SVI(steps=300, learning_rate=0.05, guide=guide)
    result = probkit.fit(regression, (x, y), engine=engine)
    assert result.diagnostics["khat"] > 0.7
    assert "k-hat" in result.diagnostics["warnings"][0]


def test_laplace_guide_becomes_a_gaussian_and_map_is_called_a_point():
    engine = SVI(steps=500, learning_rate=0.05, guide="AutoLaplaceApproximation")
    draws = probkit.fit(normal_mean, Y, engine=engine).posterior.draws["mean"]
    assert float(draws.std()) == pytest.approx(SD, rel=0.1)
    point = probkit.fit(normal_mean, Y, engine=SVI(steps=50, guide="AutoDelta"))
    assert "point estimate" in point.diagnostics["warnings"][0]
    assert math.isnan(point.diagnostics["khat"])


def test_nuts_agrees_with_the_closed_form():
    x, y = regression_data()
    mean, covariance = regression_answer(x, y)
    engine = NUTS(num_samples=200, num_warmup=100, num_chains=2)
    result = probkit.fit(regression, (x, y), engine=engine, seed=2)
    assert result.status is Status.CONVERGED
    assert result.diagnostics["divergences"] == [0, 0]
    draws = result.posterior.draws["weights"]
    assert draws.shape == (2, 200, 3)
    size = result.diagnostics["min_ess_bulk"]
    assert size > 100
    sd = covariance.diagonal().sqrt()
    flat = draws.flatten(0, 1)
    assert ((flat.mean(0) - mean).abs() < 4 * sd / size**0.5).all()
    assert ((flat.std(0) - sd).abs() < 4 * sd / (2 * size) ** 0.5 * 1.5).all()


def test_nuts_and_gibbs_agree_on_unknown_precision():
    def model(y):
        mean = pyro.sample("mean", dist.Normal(torch.zeros((), dtype=y.dtype), 10.0))
        precision = pyro.sample(
            "precision", dist.Gamma(torch.ones((), dtype=y.dtype), torch.tensor(0.5))
        )
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mean, precision.rsqrt()), obs=y)

    a = probkit.fit(model, Y, engine=NUTS(num_samples=200, num_warmup=100))
    b = probkit.fit(NormalGibbs(Y), engine=Gibbs(num_samples=1000, num_warmup=20))
    sizes = [r.diagnostics["min_ess_bulk"] for r in (a, b)]
    for site in ("mean", "precision"):
        sd = float(b.posterior.sd()[site])
        error = sd * sum(1 / size for size in sizes) ** 0.5
        assert float(a.posterior.mean()[site] - b.posterior.mean()[site]) == pytest.approx(
            0.0, abs=4 * error
        )


def test_divergences_are_reported():
    def funnel():
        width = pyro.sample("width", dist.Normal(torch.zeros((), dtype=torch.float64), 3.0))
        with pyro.plate("units", 9):
            pyro.sample("x", dist.Normal(torch.zeros((), dtype=torch.float64), (width / 2).exp()))

    result = probkit.fit(funnel, engine=NUTS(num_samples=100, num_warmup=50, target_accept=0.6))
    assert sum(result.diagnostics["divergences"]) > 0
    assert "divergent" in result.diagnostics["warnings"][0]


@pytest.mark.parametrize(("model", "data"), [(normal_mean, (Y,)), (regression, regression_data())])
def test_vectorised_particles_give_the_same_elbo(model, data):
    """The mean of single-particle ELBOs equals one run with as many vectorised particles."""
    count = 400
    args, _ = ModelArguments.of(data)
    with param_scope(), pyro_seed(3):
        guide = AutoNormal(model)
        guide(*args)
        singles = torch.tensor(
            [Trace_ELBO().loss(model, guide, *args) for _ in range(count)], dtype=torch.float64
        )
        together = Trace_ELBO(num_particles=count, vectorize_particles=True)
        value = together.loss(model, guide, *args)
    error = float(singles.std()) * (2 / count) ** 0.5
    assert value == pytest.approx(float(singles.mean()), abs=4 * error)


def test_vectorised_particles_fit():
    engine = SVI(steps=500, learning_rate=0.05, num_particles=8, vectorize_particles=True)
    draws = probkit.fit(normal_mean, Y, engine=engine).posterior.draws["mean"]
    assert float(draws.mean()) == pytest.approx(MEAN, abs=4 * SD / 1000**0.5 + 0.05 * SD)


def test_subsampling_by_the_models_own_plate():
    def model(y):
        mean = pyro.sample("mean", dist.Normal(torch.zeros((), dtype=y.dtype), 2.0))
        with pyro.plate("data", len(y), subsample_size=20) as index:
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y[index])

    engine = SVI(steps=800, learning_rate=0.05, decay=0.01)
    result = probkit.fit(model, Y, engine=engine)
    assert float(result.posterior.mean()["mean"]) == pytest.approx(MEAN, abs=0.3 * SD)
    assert "subsamples" in result.diagnostics["khat_note"]


def test_batches_from_an_iterable_scale_the_likelihood():
    class Loader:
        def __iter__(self):
            order = torch.randperm(len(Y), generator=GENERATOR)
            yield from (Y[rows] for rows in order.split(15))  # the last one is shorter

    GENERATOR = torch.Generator().manual_seed(5)
    engine = SVI(steps=1500, learning_rate=0.05, decay=0.01, num_particles=4)
    result = probkit.fit(normal_mean, Batches(Loader(), len(Y)), engine=engine, seed=0)
    assert float(result.posterior.mean()["mean"]) == pytest.approx(MEAN, abs=0.4 * SD)
    assert float(result.posterior.sd()["mean"]) == pytest.approx(SD, rel=0.2)
    assert "iterable" in result.provenance["compile"]["reason"]
    assert "elbo" in result.diagnostics and "khat" not in result.diagnostics
    with pytest.raises(ConfigurationError, match="num_rows=3"):
        probkit.fit(normal_mean, Batches([Y], 3), engine=engine)
    with pytest.raises(ConfigurationError, match="batch_size"):
        probkit.fit(normal_mean, Batches([Y], len(Y)), engine=SVI(batch_size=5))
