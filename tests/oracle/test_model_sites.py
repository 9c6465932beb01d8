"""Derived sites at every draw and plates' names in the data tree, the same for every engine."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

from probkit.infer import HMC, NUTS, SVI, FitResult, Laplace
from probkit.infer.model_sites import plate_names

X = torch.linspace(0, 1, 20, dtype=torch.float64)
Y = 2 * X + 0.1 * torch.randn(20, generator=torch.Generator().manual_seed(0), dtype=X.dtype)
GROUPS = ["log_likelihood", "posterior_predictive", "prior", "prior_predictive", "observed_data"]


def grouped(x, y):
    """Effects of four groups, their doubles and their sum, and shares of three parts."""
    mean = pyro.sample("mean", dist.Normal(x.new_zeros(()), 1.0))
    with pyro.plate("groups", 4):
        effect = pyro.sample("effect", dist.Normal(mean, 1.0))
        pyro.deterministic("double", 2 * effect)
        pyro.sample("shares", dist.Dirichlet(x.new_ones(3)))
    pyro.deterministic("total", effect.sum())
    pyro.deterministic("ahead", effect.argmax())
    pyro.deterministic("up", effect > 0)
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(effect[torch.arange(len(x)) % 4] * x, 0.1), obs=y)


ENGINES = [
    SVI(steps=50, num_posterior_samples=30, num_diagnostic_samples=0, compile="off"),
    SVI(
        steps=50,
        num_posterior_samples=30,
        num_diagnostic_samples=0,
        guide="mean_field",
        compile="off",
    ),
    NUTS(num_samples=10, num_warmup=10, compile="off"),
    HMC(num_samples=10, num_warmup=10, num_chains=2, compile="off"),
    Laplace(num_posterior_samples=30),
]


@pytest.mark.parametrize("engine", ENGINES, ids=["SVI", "own guide", "NUTS", "HMC", "Laplace"])
def test_derived_sites_and_plates_are_in_the_tree_and_in_the_file(engine, tmp_path):
    result = engine.fit(grouped, (X, Y), seed=0)
    draws = result.posterior.draws
    torch.testing.assert_close(draws["double"], 2 * draws["effect"])
    torch.testing.assert_close(draws["total"], draws["effect"].sum(-1))
    assert torch.equal(draws["ahead"], draws["effect"].argmax(-1))
    share = (draws["effect"] > 0).double().mean((0, 1))
    torch.testing.assert_close(result.posterior.mean()["up"], share)
    assert "ahead" in result.summary(num_rows=1000)
    tree = result.to_datatree(num_samples=5, include=GROUPS)
    result.save(tmp_path)
    for group in (
        tree["posterior"],
        tree["prior"],
        FitResult.load(tmp_path).to_datatree().posterior,
    ):
        assert group["effect"].dims == group["double"].dims == ("chain", "draw", "groups")
        assert group["shares"].dims[2] == "groups" and group["shares"].shape[2:] == (4, 3)
        assert group["total"].dims == ("chain", "draw")
        assert "rows" not in group
    torch.testing.assert_close(
        torch.as_tensor(tree["prior"]["double"].values),
        2 * torch.as_tensor(tree["prior"]["effect"].values),
    )
    for name in ("log_likelihood", "posterior_predictive", "prior_predictive"):
        assert tree[name]["y"].dims == ("chain", "draw", "rows")
    assert tree["observed_data"]["y"].dims == ("rows",)


def test_minibatches_have_no_derived_sites():
    def subsampled(y):
        mean = pyro.sample("mean", dist.Normal(y.new_zeros(()), 1.0))
        with pyro.plate("rows", len(y), subsample_size=5) as index:
            pyro.deterministic("error", y[index] - mean)
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y[index])

    engine = SVI(steps=20, num_posterior_samples=10, num_diagnostic_samples=0, compile="off")
    assert set(engine.fit(subsampled, Y, seed=0).posterior.draws) == {"mean"}

    def whole(y):
        mean = pyro.sample("mean", dist.Normal(y.new_zeros(()), 1.0))
        pyro.deterministic("error", y - mean)
        pyro.sample("y", dist.Normal(mean, 1.0).expand([len(y)]).to_event(1), obs=y)

    engine = SVI(steps=20, num_posterior_samples=10, num_diagnostic_samples=0, batch_size=5)
    assert set(engine.fit(whole, Y, seed=0).posterior.draws) == {"mean"}


def test_plates_name_only_dimensions_of_their_size():
    def clashing():
        zero = torch.zeros(())
        with pyro.plate("draw", 2):
            pyro.sample("x", dist.Normal(zero, 1.0))
        with pyro.plate("outer", 2, dim=-2), pyro.plate("inner", 3, dim=-1):
            pyro.sample("both", dist.Normal(zero, 1.0))
            pyro.deterministic("constant", zero)
        with pyro.plate("part", 5, subsample_size=2):
            pyro.sample("some", dist.Normal(zero, 1.0))

    sites = pyro.poutine.trace(clashing).get_trace().nodes
    assert plate_names(sites) == {"both": ["outer", "inner"]}
