"""Diagnostics against closed forms, and the verdict on fits that are known to be wrong."""

from __future__ import annotations

import math
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch

import probkit
from probkit.errors import ConfigurationError
from probkit.infer import HMC, SVI, FitResult, Laplace, Status, WeightedDraws
from probkit.infer.importance import pareto_smooth
from probkit.infer.model_checks import ModelChecks, leave_one_out, predictive_p_values
from probkit.infer.pyro_data import ModelArguments
from probkit.infer.verdict import judge
from probkit.infer.width_check import score_widths
from tests.toy_models import normal_data, normal_mean, normal_mean_answer, regression

Y = normal_data()
MEAN, SD, EVIDENCE = normal_mean_answer(Y)
DOUBLE = torch.float64
MEAN_FIELD = SVI(steps=1200, learning_rate=0.02, num_posterior_samples=100)


def correlated():
    covariance = torch.tensor([[1.0, 0.95], [0.95, 1.0]], dtype=DOUBLE)
    pyro.sample("z", dist.MultivariateNormal(torch.zeros(2, dtype=DOUBLE), covariance))


@pytest.mark.parametrize("seed", range(3))
def test_mean_field_on_a_correlated_gaussian_is_red(seed):
    result = probkit.fit(correlated, engine=MEAN_FIELD, seed=seed)
    assert result.verdict.colour == "red"
    assert result.summary().startswith("RED: ")
    # the broad direction has variance 1.95, the guide's best is 1 - .95^2 in every direction
    assert result.diagnostics["direction_sd_ratio"][1] == pytest.approx(
        (1.95 / 0.0975) ** 0.5, rel=0.1
    )


def test_good_fits_are_green():
    engine = SVI(steps=1500, learning_rate=0.05, decay=0.01, num_particles=4)
    result = probkit.fit(normal_mean, Y, engine=engine, seed=0)
    assert result.diagnostics["num_weighed"] == 1000
    result.status = Status.CONVERGED  # the schedule, not the objective, ended this one
    assert result.verdict.colour == "green", result.verdict
    assert probkit.fit(normal_mean, Y, engine=Laplace()).verdict.colour == "green"


def test_importance_weights_correct_a_guide_that_is_too_narrow():
    half = SD / 1.3

    def guide(y):
        pyro.sample("mean", dist.Normal(MEAN + 0 * pyro.param("p", torch.zeros(())), half))

    engine = SVI(steps=20, window=5, guide=guide, num_diagnostic_samples=4000, compile="off")
    result = probkit.fit(normal_mean, Y, engine=engine, seed=0)
    assert float(result.posterior.sd()["mean"]) == pytest.approx(half, rel=0.1)
    assert float(result.importance.sd()["mean"]) == pytest.approx(SD, rel=0.08)
    assert result.diagnostics["log_evidence"] == pytest.approx(EVIDENCE, abs=0.05)
    assert result.diagnostics["direction_sd_ratio"] == pytest.approx([1.3, 1.3], rel=0.05)
    assert result.verdict.colour == "amber"
    drawn = result.importance.sample(2000, torch.Generator().manual_seed(0))["mean"]
    assert float(drawn.std()) == pytest.approx(SD, rel=0.1)


def test_weighted_draws_are_saved_and_loaded(tmp_path):
    result = probkit.fit(normal_mean, Y, engine=Laplace())
    loaded = FitResult.load(result.save(tmp_path))
    assert torch.equal(loaded.importance.log_weights, result.importance.log_weights)
    assert torch.equal(loaded.importance.draws["mean"], result.importance.draws["mean"])
    assert loaded.posterior.draws.keys() == {"mean"}
    assert str(loaded.verdict) == str(result.verdict)


def test_weights_that_cannot_be_trusted():
    z = torch.linspace(-1, 1, 200, dtype=DOUBLE)
    broken = torch.where(z > 0.99, torch.nan, -z)
    weighted = WeightedDraws({"z": z}, broken)
    assert weighted.khat == math.inf
    assert float(weighted.weights[-1]) == 0
    assert judge(Status.CONVERGED, weighted.diagnostics()).colour == "red"
    few = WeightedDraws({"z": z[:9]}, z[:9])
    assert math.isnan(few.khat)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_that_differ_by_rounding_are_even(dtype):
    """A linear model and its exact posterior: arithmetic is all that makes the weights differ."""
    noise = torch.randn(500, generator=torch.Generator().manual_seed(0)).to(dtype)
    logs = -77 + 2 * torch.finfo(dtype).eps * 77 * (noise * 2).round()
    weights, khat = pareto_smooth(logs)
    assert khat == -float("inf") and bool((weights == 1 / 500).all())
    found = leave_one_out(logs[:, None].expand(-1, 3))
    assert found["num_bad"] == 0 and found["elpd"] == pytest.approx(-231, rel=1e-5)
    assert "inf" not in str(judge(Status.CONVERGED, {"khat": khat}))


def test_guides_that_cannot_be_mapped_are_weighed_one_by_one():
    def guide(y):
        loc = pyro.param("loc", torch.tensor(MEAN, dtype=DOUBLE))
        drawn = pyro.sample("mean", dist.Normal(loc, SD))
        return float(drawn.detach())

    engine = SVI(steps=20, window=5, learning_rate=1e-6, guide=guide)
    result = probkit.fit(normal_mean, Y, engine=engine, seed=0)
    assert result.diagnostics["num_weighed"] == 200
    assert result.diagnostics["elbo"] == pytest.approx(EVIDENCE, abs=1e-3)


def test_scores_of_the_exact_posterior_have_unit_widths_whatever_its_shape():
    """A log-gamma posterior: skewed, and its own scores still have curvature one."""
    generator = torch.Generator().manual_seed(0)
    gamma = -torch.rand(40_000, 3, generator=generator, dtype=DOUBLE).log().sum(1)
    u = gamma.log()[:, None]
    least, greatest = score_widths(u, 3 - u.exp())
    assert least == pytest.approx(1, abs=0.03) and greatest == pytest.approx(1, abs=0.03)
    assert score_widths(u, u)[1] == math.inf


def test_pointwise_likelihood_and_leave_one_out():
    result = probkit.fit(normal_mean, Y, engine=Laplace(num_posterior_samples=4000))
    found = result.log_likelihood()["y"]
    draws = result.posterior.draws["mean"][0]
    assert torch.allclose(found, dist.Normal(draws[:, None], 1.0).log_prob(Y))
    # exact: y_n given the others is normal
    precision = 0.25 + len(Y) - 1
    mean, variance = (Y.sum() - Y) / precision, 1 + 1 / precision
    exact = float(dist.Normal(mean, variance**0.5).log_prob(Y).sum())
    # the posterior variance of 4000 draws, which sets p_loo (about 1), is known to 2 %: three times
    assert leave_one_out(found)["elpd"] == pytest.approx(exact, abs=0.07)
    assert leave_one_out(found)["p_loo"] == pytest.approx(
        float(Y.var()), abs=0.35
    )  # one unknown, noise of unit variance


def test_a_wrong_model_is_amber_and_says_which_statistic():
    outlying = torch.cat([Y, torch.full((1,), 25.0, dtype=DOUBLE)])
    result = probkit.fit(normal_mean, outlying, engine=Laplace())
    assert result.verdict.colour == "green"
    verdict = result.check()
    assert verdict.colour == "amber"
    assert any("maximum of 'y'" in reason for reason in verdict.reasons)
    assert "elpd_loo" in result.summary()


def test_masked_entries_are_no_data_of_checks():
    seen = torch.arange(len(Y)) % 5 != 0

    def model(y, rows):
        mean = pyro.sample("mean", dist.Normal(torch.zeros((), dtype=DOUBLE), 2.0))
        with pyro.plate("rows", len(y)), pyro.poutine.mask(mask=rows):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)
        with pyro.poutine.mask(mask=False):
            pyro.sample("off", dist.Normal(mean, 1.0), obs=y[0])

    def checked(y):
        result = probkit.fit(model, (y, seen), engine=Laplace())
        result.check(num_samples=200)
        return result

    filled = checked(torch.where(seen, Y, 999.0))
    assert filled.verdict.colour == "green"
    for key in ("loo", "predictive_p"):
        assert filled.diagnostics[key] == checked(Y).diagnostics[key]
    draws = {name: value[0] for name, value in filled.posterior.draws.items()}
    likelihood = dist.Normal(draws["mean"][:, None], 1.0).log_prob(Y[seen])
    assert filled.diagnostics["loo"]["y"]["elpd"] == pytest.approx(
        leave_one_out(likelihood)["elpd"], abs=0.1
    )


def test_replicated_data_have_the_predictive_distribution():
    result = probkit.fit(normal_mean, Y, engine=Laplace())
    replicated = result.replicate(num_samples=3000)["y"]
    assert replicated.shape == (3000, len(Y))
    assert float(replicated.mean()) == pytest.approx(MEAN, abs=4 * SD / 1000**0.5)
    assert float(replicated[:, 0].std()) == pytest.approx((1 + SD**2) ** 0.5, rel=0.06)
    prior = result.prior(num_samples=4000)
    assert float(prior["mean"].std()) == pytest.approx(2.0, rel=0.06)
    assert float(prior["y"][:, 0].std()) == pytest.approx(5**0.5, rel=0.06)
    assert torch.equal(replicated, result.replicate(num_samples=3000)["y"])


def test_discrete_data_and_several_shapes_go_through_vmap_and_loops_alike():
    def model(x, y, branch=False):
        w = pyro.sample("w", dist.Normal(torch.zeros(2, dtype=DOUBLE), 1.0).to_event(1))
        rate = (x @ w).exp()
        if branch:
            float(w[0])
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Poisson(rate), obs=y)

    x = torch.linspace(-1, 1, 20, dtype=DOUBLE).reshape(10, 2)
    y = torch.arange(10, dtype=DOUBLE)
    draws = {"w": torch.randn(30, 2, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)}
    mapped = ModelChecks(model, ModelArguments.of((x, y)))
    looped = ModelChecks(model, ModelArguments.of({"x": x, "y": y, "branch": True}))
    assert torch.allclose(mapped.log_likelihood(draws)["y"], looped.log_likelihood(draws)["y"])
    assert mapped.replicate(draws)["y"].shape == looped.replicate(draws)["y"].shape == (30, 10)
    p = predictive_p_values(y, mapped.replicate(draws)["y"])
    assert p.keys() == {"mean", "minimum", "maximum", "sd"}
    assert all(0 <= value <= 1 for value in p.values())


def test_groups_of_the_data_tree():
    result = probkit.fit(normal_mean, Y, engine=Laplace(num_posterior_samples=20))
    names = ("log_likelihood", "posterior_predictive", "prior", "prior_predictive", "observed_data")
    tree = result.to_datatree(include=names, num_samples=7)
    assert set(tree.children) == {"posterior", *names}
    assert tree["log_likelihood"]["y"].shape == (1, 20, len(Y))
    assert tree["prior_predictive"]["y"].shape == (1, 7, len(Y))
    assert tree["observed_data"]["y"].shape == (len(Y),)
    with pytest.raises(ConfigurationError, match="No such group"):
        result.to_datatree(include=("likelihood",))


def test_results_without_their_model_say_so(tmp_path):
    result = probkit.fit(normal_mean, Y, engine=Laplace(num_posterior_samples=20))
    for other in (FitResult.load(result.save(tmp_path)), pickle.loads(pickle.dumps(result))):
        with pytest.raises(ConfigurationError, match="does not hold a Pyro model"):
            other.check()
        assert other.verdict == result.verdict


def test_subsampling_models_have_no_pointwise_likelihood():
    def model(y):
        mean = pyro.sample("mean", dist.Normal(torch.zeros((), dtype=DOUBLE), 2.0))
        with pyro.plate("data", len(y), subsample_size=5) as rows:
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y[rows])

    with pytest.raises(ConfigurationError, match="plate 'data'"):
        ModelChecks(model, ModelArguments.of(Y)).log_likelihood({"mean": torch.zeros(3)})


def test_learned_parameters_of_the_model_are_used_in_checks():
    def model(y):
        scale = pyro.param(
            "scale", torch.tensor(3.0, dtype=DOUBLE), constraint=dist.constraints.positive
        )
        mean = pyro.sample("mean", dist.Normal(torch.zeros((), dtype=DOUBLE), 2.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mean, scale), obs=y)

    engine = SVI(steps=600, learning_rate=0.03, num_posterior_samples=50)
    result = probkit.fit(model, Y, engine=engine)
    replicated = result.replicate(num_samples=500)["y"]
    assert float(replicated.std()) == pytest.approx(float(Y.std()), rel=0.15)


def test_verdicts():
    assert judge(Status.NON_FINITE, {}).colour == "red"
    assert judge(Status.CONVERGED, {}).colour == "amber"
    assert judge(Status.CONVERGED, {"point_estimate": True}).colour == "amber"
    for share, count, colour in ((0.9, 500, "amber"), (0.6, 500, "red"), (0.6, 29, "amber")):
        held_out = {"held_out_coverage": {"random": (share, count)}}
        found = judge(Status.CONVERGED, held_out)
        assert found.colour == colour and "random" in str(found)
    chains = {"max_r_hat": 1.0, "min_ess_bulk": 900.0, "num_draws": 100, "divergences": [0, 0]}
    assert judge(Status.CONVERGED, chains).colour == "green"
    assert judge(Status.CONVERGED, {**chains, "divergences": [3, 0]}).colour == "red"
    assert judge(Status.CONVERGED, {**chains, "e_bfmi": 0.1}).colour == "red"
    assert judge(Status.CONVERGED, {**chains, "min_ess_bulk": 30.0}).colour == "amber"
    assert judge(Status.MAX_STEPS, chains).colour == "amber"


def test_chains_report_monte_carlo_errors():
    result = probkit.fit(
        normal_mean, Y, engine=HMC(num_samples=100, num_warmup=60, num_chains=4, compile="off")
    )
    draws = result.posterior.draws["mean"]
    assert 1 / draws.numel() ** 0.5 * 0.4 < result.diagnostics["mcse"]["mean"] < 0.3
    x = torch.randn(30, 2, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    assert probkit.fit(regression, (x, x[:, 0]), engine=Laplace()).verdict.colour == "green"
