"""Guides by form: right posteriors, and saved fits that draw anew without model and data."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import probkit
from probkit.errors import ConfigurationError
from probkit.infer import SVI, FitResult, param_scope
from probkit.infer.flat_guides import FORMS, FlatGuide
from probkit.infer.pyro_data import ModelArguments
from probkit.infer.site_layout import SiteLayout
from probkit.infer.updates import natural_gradient

F64 = {"dtype": torch.float64}
COVARIANCE = torch.tensor([[1.0, 0.8], [0.8, 1.5]], **F64)
MEAN = torch.tensor([1.0, -2.0], **F64)


def gaussian():
    pyro.sample("x", dist.MultivariateNormal(MEAN, COVARIANCE))


def supports():
    one = torch.ones(3, **F64)
    pyro.sample("positive", dist.Gamma(2 * one, one).to_event(1))
    pyro.sample("between", dist.Uniform(-one[0], 2 * one[0]))
    pyro.sample("simplex", dist.Dirichlet(one))
    pyro.sample("matrix", dist.LKJCholesky(3, one[0]))
    with pyro.plate("rows", 3):
        pyro.sample("share", dist.Beta(one, one))


def fit(model, form, **settings):
    settings = {"steps": 6000, "learning_rate": 0.02, "decay": 0.01, **settings}
    return probkit.fit(model, engine=SVI(guide=form, **settings), seed=0)


@pytest.mark.parametrize("form", FORMS)
def test_forms_find_a_gaussian(form):
    settings = {"steps": 2500, "num_particles": 2} if form == "flow" else {}
    posterior = fit(gaussian, form, num_diagnostic_samples=0, **settings).posterior
    draws = posterior.sample(20_000, torch.Generator().manual_seed(0))["x"]
    found = torch.cov(draws.T)
    if form == "mean_field":  # the best product has the conditional variances
        expected = torch.diag(1 / torch.linalg.inv(COVARIANCE).diagonal())
    else:
        expected = COVARIANCE
    assert (draws.mean(0) - MEAN).abs().max() < 0.12
    assert (found - expected).abs().max() < 0.15


@pytest.mark.parametrize("form", FORMS)
def test_densities_are_those_of_the_transformed_flat_vector(form):
    layout = SiteLayout.of(supports, ModelArguments.of(None))
    assert layout == SiteLayout.from_spec(layout.spec())
    with param_scope():
        guide = FlatGuide.of(supports, ModelArguments.of(None), form)
        trace = pyro.poutine.trace(guide).get_trace()
    flat = trace.nodes["_flat"]["value"]
    values, log_det = layout.values(flat)
    torch.testing.assert_close(trace.log_prob_sum(), guide.base().log_prob(flat) - log_det)
    model = pyro.poutine.trace(pyro.poutine.condition(supports, values)).get_trace()
    assert model.log_prob_sum().isfinite()
    assert set(values) == {"positive", "between", "simplex", "matrix", "share"}


@pytest.mark.parametrize("form", FORMS)
def test_a_loaded_fit_draws_without_model_and_data(form, tmp_path):
    result = fit(supports, form, steps=20, num_diagnostic_samples=0)
    loaded = FitResult.load(result.save(tmp_path))
    one, other = (r.posterior.sample(7, torch.Generator().manual_seed(3)) for r in (result, loaded))
    for name, value in one.items():
        assert torch.equal(value, other[name])
        assert len(value.unique(dim=0)) == 7


def test_full_rank_form_runs_in_native_code():
    result = fit(gaussian, "full_rank", compile="on")
    assert result.provenance["compile"]["compiled"]
    assert result.verdict.colour == "green"


def depends(upper=3.0):
    high = pyro.sample("high", dist.Uniform(torch.zeros((), **F64), upper))
    pyro.sample("low", dist.Uniform(torch.zeros((), **F64), high))


def discrete():
    pyro.sample("k", dist.Poisson(torch.ones((), **F64)))


@pytest.mark.parametrize(("model", "site"), [(depends, "'low'"), (discrete, "'k'")])
def test_what_has_no_layout_is_refused_by_name(model, site):
    with pytest.raises(ConfigurationError, match=site):
        fit(model, "full_rank")


def test_an_unknown_form_is_refused():
    with pytest.raises(ConfigurationError, match="full_rank"):
        fit(gaussian, "fullrank")


def test_natural_gradients_are_inverse_fisher_times_gradient():
    """Against the Fisher matrix of N(m, L L') from its closed form, by differentiation of KL."""
    generator = torch.Generator().manual_seed(0)
    loc, log_scale = (torch.randn(3, generator=generator, **F64) for _ in range(2))
    lower = torch.randn(3, 3, generator=generator, **F64).tril(-1)
    rows, columns = torch.tril_indices(3, 3, -1)
    gradient = 0.01 * torch.randn(9, generator=generator, **F64)  # short: none of it is cut

    def law(flat):
        below = torch.zeros(3, 3, **F64).index_put((rows, columns), flat[6:])
        unit = below + torch.eye(3, **F64)
        return dist.MultivariateNormal(flat[:3], scale_tril=flat[3:6].exp()[:, None] * unit)

    at = torch.cat([loc, log_scale, lower[rows, columns]])
    divergence = torch.distributions.kl_divergence
    fisher = torch.autograd.functional.hessian(lambda f: divergence(law(at), law(f)), at)
    expected = torch.linalg.solve(fisher, gradient)
    below = torch.zeros(3, 3, **F64).index_put((rows, columns), gradient[6:])
    found = natural_gradient(
        {"loc": loc, "scale": log_scale, "lower": lower},
        {"loc": gradient[:3], "scale": gradient[3:6], "lower": below},
    )
    found = torch.cat([found["loc"], found["scale"], found["lower"][rows, columns]])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", ["mean_field", "full_rank"])
def test_natural_steps_do_not_mind_the_scale(form):
    """Standard deviations a million times apart, which a single Adam rate cannot serve."""
    scales = torch.tensor([1e-3, 1e3], **F64)

    def stretched():
        covariance = COVARIANCE * torch.outer(scales, scales)
        pyro.sample("x", dist.MultivariateNormal(MEAN * scales, covariance))

    settings = {"optimizer": "natural", "learning_rate": 0.05, "steps": 4000, "compile": "on"}
    result = fit(stretched, form, **settings, num_diagnostic_samples=0)
    assert result.provenance["compile"]["compiled"]
    draws = result.posterior.sample(20_000, torch.Generator().manual_seed(0))["x"] / scales
    expected = COVARIANCE
    if form == "mean_field":
        expected = torch.diag(1 / torch.linalg.inv(COVARIANCE).diagonal())
    assert (draws.mean(0) - MEAN).abs().max() < 0.12
    assert (torch.cov(draws.T) - expected).abs().max() < 0.15


def test_natural_gradients_of_other_guides_are_refused():
    with pytest.raises(ConfigurationError, match="AutoNormal"):
        fit(gaussian, "AutoNormal", optimizer="natural")
