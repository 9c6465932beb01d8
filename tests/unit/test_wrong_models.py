"""Wrong models, guides and data are refused before the fit, with the site's name."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import probkit
from probkit.errors import (
    ConfigurationError,
    DataError,
    DtypeError,
    NotPositiveDefiniteError,
    NumericalError,
    ShapeError,
)
from probkit.infer import HMC, MAP, NUTS, SVI, Laplace, Status

F64 = {"dtype": torch.float64}
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(20, 3, generator=GENERATOR, **F64)
Y = torch.randn(20, generator=GENERATOR, **F64)
ENGINES = [
    SVI(steps=20, compile="off"),
    SVI(steps=20, compile="on"),
    HMC(num_samples=5),
    Laplace(),
    MAP(),
    NUTS(num_samples=5, num_warmup=5),
]


def weights():
    return pyro.sample("w", dist.Normal(torch.zeros(3, **F64), 1.0).to_event(1))


def regression(x, y):
    w = weights()
    with pyro.plate("rows", 20):
        pyro.sample("y", dist.Normal((x * w).sum(-1), 1.0), obs=y)


def complex_location(x, y):
    mean = x @ weights()
    pyro.sample("y", dist.Normal(torch.complex(mean, mean), 1.0).to_event(1), obs=y)


def without_a_plate(x, y):
    z = pyro.sample("z", dist.Normal(torch.zeros(20, **F64), 1.0))
    with pyro.plate("rows", 20):
        pyro.sample("y", dist.Normal(z, 1.0), obs=y)


def counts(x, y):
    rate = pyro.sample("rate", dist.LogNormal(torch.zeros((), **F64), 1.0))
    with pyro.plate("rows", 20):
        pyro.sample("y", dist.Poisson(rate), obs=y)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize(
    ("model", "data", "error", "site"),
    [
        (complex_location, (X, Y), DtypeError, "'[wy]'"),
        (without_a_plate, (X, Y), ShapeError, "'z'"),
        (regression, (X, Y[:7]), ShapeError, "'y'"),
        (regression, (X[:, :2], Y), ShapeError, "'w'|'rows'"),
        (counts, (X, Y), DataError, "'y'.*IntegerGreaterThan"),
    ],
)
def test_every_engine_names_the_site(engine, model, data, error, site):
    with pytest.raises(error, match=site):
        probkit.fit(model, data, engine=engine, seed=0)


def x_times_w(x, y):
    pyro.sample("y", dist.Normal(x @ weights(), 1.0).to_event(1), obs=y)


def sum_of_all(x, y):
    total = (x * weights()).sum()  # over the particles too, without an error
    with pyro.plate("rows", 20):
        pyro.sample("y", dist.Normal(total, 1.0), obs=y)


@pytest.mark.parametrize("particles", [2, 3, 20])
@pytest.mark.parametrize("model", [x_times_w, sum_of_all])
def test_models_that_do_not_broadcast_over_particles(model, particles):
    engine = SVI(steps=20, num_particles=particles, vectorize_particles=True)
    with pytest.raises(ShapeError, match="'[wy]'"):
        probkit.fit(model, (X, Y), engine=engine, seed=0)


def test_models_that_broadcast_pass_subsampling_included():
    def minibatches(x, y):
        w = weights()
        with pyro.plate("rows", 20, subsample_size=5) as rows:
            mean = (x[rows] * w).sum(-1)
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y[rows])

    for model in (regression, minibatches):
        engine = SVI(steps=5, num_particles=3, vectorize_particles=True)
        assert probkit.fit(model, (X, Y), engine=engine, seed=0).status is Status.MAX_STEPS


def guide_of(name, size):
    def guide(x, y):
        location = pyro.param("location", torch.zeros(size, **F64))
        pyro.sample(name, dist.Normal(location, 1.0).to_event(1))

    return guide


@pytest.mark.parametrize(
    ("guide", "error", "site"),
    [
        (guide_of("v", 3), ConfigurationError, "does not draw.*'w'"),
        (guide_of("w", 2), ShapeError, "'w'|'rows'"),
        (guide_of("y", 20), ConfigurationError, "'w'|'y'"),
    ],
)
def test_guides_that_do_not_fit_the_model(guide, error, site):
    with pytest.raises(error, match=site):
        probkit.fit(regression, (X, Y), engine=SVI(steps=5, guide=guide), seed=0)


def degenerate(y):
    """A kernel matrix that is not positive definite from step one."""
    scale = pyro.sample("scale", dist.LogNormal(torch.zeros((), **F64), 0.1))
    line = torch.arange(20.0, **F64)
    covariance = torch.exp(-((line[:, None] - line) ** 2) / (1e4 * scale))
    root = torch.linalg.cholesky(covariance - 1e-3 * torch.eye(20, **F64))
    pyro.sample("y", dist.MultivariateNormal(torch.zeros(20, **F64), scale_tril=root), obs=y)


def broken_gradient(y):
    """A value that is fine with a gradient that is not: the root of zero."""
    mean = pyro.sample("mean", dist.Normal(torch.zeros((), **F64), 1.0))
    with pyro.plate("rows", 20):
        pyro.sample("y", dist.Normal(mean, 1.0 + (mean - mean).abs().sqrt()), obs=y)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize(
    ("model", "error"),
    [(degenerate, NotPositiveDefiniteError), (broken_gradient, NumericalError)],
)
def test_models_that_break_down_at_once(engine, model, error):
    with pytest.raises(error, match="site 'y'|site 'scale'|gradient"):
        probkit.fit(model, (Y,), engine=engine, seed=0)


@pytest.mark.parametrize("compile", ["on", "off"])
def test_a_model_that_breaks_down_on_the_way_keeps_what_it_has(compile):
    def slides(y):
        level = pyro.param("level", torch.ones((), **F64))
        mean = pyro.sample("mean", dist.Normal(torch.zeros((), **F64), 1.0))
        matrix = (level - 0.9) * torch.eye(2, **F64)
        root = torch.linalg.cholesky(matrix)
        pyro.factor("pull", -level * 10)
        pyro.sample("y", dist.MultivariateNormal(mean * torch.ones(2, **F64) + 0 * root[0], root))

    def unknown_y(y):
        with pyro.poutine.block(hide=["y"]):
            slides(y)

    engine = SVI(steps=400, compile=compile, num_diagnostic_samples=0)
    result = probkit.fit(unknown_y, (Y,), engine=engine, seed=0)
    assert result.provenance["compile"]["compiled"] == (compile == "on")
    assert result.status is Status.NOT_PSD and "site 'mean'" in result.detail
    assert 0.9 < float(result.state["best.level"]) < 0.92


def test_rows_of_later_minibatches_are_looked_at():
    y = torch.ones(200, **F64)
    y[150] = -1.0

    def model(y):
        rate = pyro.sample("rate", dist.LogNormal(torch.zeros((), **F64), 1.0))
        with pyro.plate("rows", len(y), subsample_size=4) as rows:
            pyro.sample("y", dist.Poisson(rate), obs=y[rows])

    with pytest.raises(DataError, match=r"site 'y': got \[-1.0\]"):
        probkit.fit(model, y, engine=SVI(steps=500, compile="off"), seed=0)
