"""Paths driven by fractional noise: the solver's law, and guides against exact evidence."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import probkit
from probkit.errors import ConfigurationError, ShapeError
from probkit.fractional import (
    ControlGuide,
    FractionalSDE,
    MarkovApproxFBM,
    MarkovGaussianGuide,
    NeuralDrift,
    PathMarginal,
    increments,
    linearized,
)
from probkit.fractional.increments import log_density, whitening
from probkit.infer import SVI, pyro_seed
from probkit.sde.exact import simulate
from probkit.sde.torchsde_backend import simulate_torchsde
from probkit.statespace.fractional_l2 import geometric_rates

F64 = torch.float64


def bridge(hurst, reversion=0.0, **settings):
    process = MarkovApproxFBM(
        hurst, weights="l2", rates=geometric_rates(5, 0.05, 20.0), horizon=6.0, normalize="mvn"
    )
    return FractionalSDE(
        lambda t, x: -reversion * x,
        1.0,
        process,
        dt=0.02,
        num_steps=100,
        observed=torch.tensor([100]),
        **settings,
    )


@pytest.mark.parametrize("hurst", [0.2, 0.5, 0.8])
def test_bridge_reaches_the_exact_evidence(hurst):
    sde = bridge(hurst)
    paths = MarkovGaussianGuide(sde, torch.zeros(1, 1, dtype=F64)).sample(400)
    times = torch.tensor([1.0, 2.0], dtype=F64)
    covariance = sde.process.covariance(times)
    total = covariance[1, 1] + sde.likelihood.noise**2
    exact = -0.5 * torch.log(2 * math.pi * total)
    torch.testing.assert_close(paths.log_weight, exact.expand(400), rtol=0, atol=1e-9)
    sd = (covariance[0, 0] - covariance[0, 1] ** 2 / total).sqrt()
    assert float(paths.path.x[:, 50].std()) == pytest.approx(float(sd), rel=0.15)


def test_several_observations_in_two_dimensions():
    process = MarkovApproxFBM(0.7, num_steps=20, dt=0.1)
    coupling = torch.tensor([[-1.0, 0.5], [0.0, -2.0]], dtype=F64)
    sde = FractionalSDE(
        lambda t, x: x @ coupling.mT,
        lambda t, x: torch.tensor([0.5, 1.0], dtype=F64).expand(x.shape),
        process,
        dt=0.1,
        num_steps=20,
        observed=torch.tensor([0, 5, 20]),
        dim=2,
        initial=(1.0, 0.5),
    )
    _, y = sde.simulate(seed=2)
    paths = MarkovGaussianGuide(sde, y).sample(5)
    # the same linear map, column by column, gives the dense law of the observations
    size = 2 * 10 + 20 * 2 * 8

    def seen(white):
        start, noise = white[:20].reshape(2, 10), white[20:].reshape(20, 2, 8)
        return sde.path(start, noise).x[sde.observed].flatten()

    mean = seen(torch.zeros(size, dtype=F64))
    slope = torch.func.jacfwd(seen)(torch.zeros(size, dtype=F64))
    covariance = slope @ slope.mT + sde.likelihood.noise**2 * torch.eye(6, dtype=F64)
    law = torch.distributions.MultivariateNormal(mean, covariance)
    exact = law.log_prob(y.flatten())
    torch.testing.assert_close(paths.log_weight, exact.expand(5), rtol=0, atol=1e-8)


def double_well(hurst=0.7, num_steps=200):
    process = MarkovApproxFBM(hurst, num_steps=num_steps, dt=0.02)
    observed = torch.arange(10, num_steps + 1, 10)
    return FractionalSDE(
        lambda t, x: x - x**3,
        0.5,
        process,
        dt=0.02,
        num_steps=num_steps,
        observed=observed,
        initial=(0.0, 1.0),
    )


def test_nonlinear_drift_is_close_to_the_evidence():
    sde = double_well()
    _, y = sde.simulate(seed=1)
    paths = MarkovGaussianGuide(sde, y).sample(300, seed=1)
    assert float(paths.log_evidence - paths.elbo) < 0.3
    assert paths.khat() < 0.7


def test_guide_is_a_pyro_guide():
    sde = double_well(num_steps=40)
    _, y = sde.simulate(seed=3)
    guide = MarkovGaussianGuide(sde, y)
    with pyro_seed(0):
        trace = pyro.poutine.trace(guide).get_trace(y)
        model = pyro.poutine.trace(pyro.poutine.replay(sde, trace)).get_trace(y)
        elbo = float(model.log_prob_sum() - trace.log_prob_sum())
    paths = guide.sample(2000)
    error = float(paths.log_weight.std()) / math.sqrt(sde.num_paths)
    assert elbo == pytest.approx(float(paths.elbo), abs=5 * error)


def test_gradients_reach_the_drift():
    drift = torch.nn.Linear(1, 1, dtype=F64)
    with torch.no_grad():
        drift.weight.fill_(-0.5)
        drift.bias.fill_(0.2)
    process = MarkovApproxFBM(0.7, num_steps=20, dt=0.1)
    grid = torch.arange(2, 21, 2)
    sde = FractionalSDE(
        lambda t, x: drift(x), 0.5, process, dt=0.1, num_steps=20, observed=grid, noise=0.3
    )
    _, y = sde.simulate(seed=0)
    guide = MarkovGaussianGuide(sde, y)
    guide.sample(4000).elbo.backward()
    # at the exact posterior the ELBO touches the evidence, so the gradients agree
    found = drift.weight.grad.item()
    step = 1e-5
    values = []
    with torch.no_grad():
        for sign in (1, -2):
            drift.weight += sign * step
            guide.update()
            values.append(float(guide.sample(4).elbo))
    assert found == pytest.approx((values[0] - values[1]) / (2 * step), rel=0.1, abs=0.03)


def test_solver_has_the_law_of_the_process():
    process = MarkovApproxFBM(0.3, num_steps=16, dt=0.25)
    times = 0.25 * torch.arange(17, dtype=F64)
    path, kl = simulate(
        lambda t, x: torch.zeros_like(x),
        lambda t, x: torch.ones_like(x),
        process,
        times,
        torch.zeros(40_000, 1, dtype=F64),
        generator=torch.Generator().manual_seed(1),
    )
    exact = process.variance(times[1:])
    found = path[:, 1:, 0].square().mean(0)
    assert bool(((found - exact).abs() <= 5 * exact * math.sqrt(2 / 40_000)).all())
    assert not kl.any()


def test_bad_terms():
    process = MarkovApproxFBM(0.7)
    common = {"dt": 0.1, "num_steps": 10, "observed": torch.tensor([10])}
    with pytest.raises(ConfigurationError, match="must be positive"):
        FractionalSDE(lambda t, x: -x, -1.0, process, **common)
    with pytest.raises(ShapeError, match="shape of the state"):
        FractionalSDE(lambda t, x: x.sum(-1), 1.0, process, **common)
    with pytest.raises(ConfigurationError, match="on the grid"):
        FractionalSDE(
            lambda t, x: x, 1.0, process, dt=0.1, num_steps=10, observed=torch.tensor([11])
        )
    with pytest.raises(ConfigurationError, match="one for every coordinate"):
        both = MarkovApproxFBM(torch.tensor([0.3, 0.7], dtype=F64))
        FractionalSDE(lambda t, x: x, 1.0, both, **common)


def test_both_backends_have_the_same_law():
    process = MarkovApproxFBM(
        0.7, weights="l2", rates=geometric_rates(4, 0.1, 10.0), horizon=1.0, normalize="mvn"
    )
    times = torch.linspace(0, 1, 51, dtype=F64)
    start = torch.zeros(3000, 1, dtype=F64)

    def drift(t, x):
        return -x

    def diffusion(t, x):
        return torch.full_like(x, 0.5)

    generator = torch.Generator().manual_seed(0)
    ours, _ = simulate(drift, diffusion, process, times, start, generator=generator)
    theirs, _ = simulate_torchsde(
        drift, diffusion, process, times, start, dt=0.02, generator=generator
    )
    first, second = ours[:, -1, 0].square(), theirs[:, -1, 0].square()
    error = ((first.var() + second.var()) / 3000).sqrt()
    assert abs(float(first.mean() - second.mean())) <= 4 * float(error)
    for settings in ({"dt": 0.02, "method": "reversible_heun"}, {"dt": 0.06}):
        with pytest.raises(ConfigurationError, match=r"probkit\.sde\.exact"):
            simulate_torchsde(
                drift, diffusion, process, times, start, generator=generator, **settings
            )


def test_control_is_bounded_by_the_evidence_and_close_to_it():
    sde = bridge(0.8)
    y = torch.zeros(1, 1, dtype=F64)
    exact = float(MarkovGaussianGuide(sde, y).sample(2).elbo)
    with torch.no_grad():
        controlled = ControlGuide(sde, y).sample(4000)
        free = ControlGuide(sde, y, gain=False, network=lambda t, x, z: torch.zeros_like(x)).sample(
            400
        )
    error = float((controlled.log_likelihood - controlled.kl).std()) / math.sqrt(4000)
    # its optimum at twice as many steps is .082 below the evidence, for Y(0) keeps its prior
    assert exact - 0.2 - 3 * error < float(controlled.elbo) < exact + 3 * error
    assert float(free.elbo) < exact - 10
    with pytest.raises(ConfigurationError, match="gain or a network"):
        ControlGuide(sde, y, gain=False)


def test_native_recursions_agree_with_torch(monkeypatch):
    sde = double_well(num_steps=30)
    _, y = sde.simulate(seed=0)
    filter = whitening(sde.process, sde.dt, 30)
    r = torch.randn(30, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    r.requires_grad_()

    def answers():
        guide = MarkovGaussianGuide(sde, y)
        (slope,) = torch.autograd.grad(log_density(r, filter).sum(), r)
        return [*guide._start, *guide._steps, log_density(r, filter).detach(), slope]

    fast = answers()
    for module in (linearized, increments):
        monkeypatch.setattr(module, "is_native", lambda like: False)
    for a, b in zip(fast, answers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)
    lags = (torch.arange(30)[:, None] - torch.arange(30)).abs()
    dense = torch.distributions.MultivariateNormal(
        torch.zeros(30, dtype=F64), sde.process.increment_covariance(200)[lags]
    )
    torch.testing.assert_close(fast[-2], dense.log_prob(r.detach().mT), rtol=1e-8, atol=0)


def line(slope=-2.0):
    class Line(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.slope = torch.nn.Parameter(torch.tensor(slope, dtype=F64))

        def forward(self, t, x):
            return self.slope * x

    return Line()


def linear_sde(drift, hurst=0.7, **settings):
    common = {"dt": 0.1, "num_steps": 60, "observed": torch.arange(1, 61), "num_paths": 8}
    return FractionalSDE(drift, 0.5, hurst, **common, **settings)


def test_marginal_of_the_path_has_the_maximum_of_the_evidence():
    _, y = linear_sde(lambda t, x: -1.5 * x).simulate(seed=4)
    drift = line(-0.5)
    marginal = PathMarginal(linear_sde(drift), y, num_paths=16, refresh=5)
    engine = SVI(
        steps=60, learning_rate=0.2, guide=lambda y: None, window=20, num_diagnostic_samples=0
    )
    engine.fit(marginal, y, seed=0)
    found = drift.slope.item()
    # a linear drift: the guide's weights are the exact evidence
    slopes = torch.arange(-3.5, -0.5, 0.2, dtype=F64)
    with torch.no_grad():
        guides = (MarkovGaussianGuide(linear_sde(lambda t, x, a=a: a * x), y) for a in slopes)
        evidence = torch.stack([guide.sample(1).elbo for guide in guides])
    assert found == pytest.approx(float(slopes[evidence.argmax()]), abs=0.2)


def test_network_with_priors_is_learned_and_fixed():
    _, y = linear_sde(lambda t, x: -1.5 * x).simulate(seed=4)
    marginal = PathMarginal(linear_sde(NeuralDrift(width=16)), y, num_paths=8)
    engine = SVI(steps=40, learning_rate=0.1, guide="AutoDelta", window=20)
    result = engine.fit(marginal, y, seed=0)
    objective = result.history["objective"]
    assert objective[-10:].mean() > objective[:5].mean() + 1
    sde = marginal.sde_at(result.posterior.mean())
    x = torch.tensor([[-0.5], [0.5]], dtype=F64)
    left, right = sde.drift(0.0, x)[:, 0].tolist()
    assert left > 0 > right
    with pytest.raises(ConfigurationError, match="held fixed"):
        PathMarginal(linear_sde(line(), learn_hurst=True), y)


def test_fit_reports_the_weights_of_single_paths():
    sde = double_well(num_steps=60)
    _, y = sde.simulate(seed=1)
    drift = line(-0.5)
    learned = FractionalSDE(
        drift, 0.5, sde.process, dt=0.02, num_steps=60, observed=sde.observed, num_paths=8
    )
    guide = MarkovGaussianGuide(learned, y)
    engine = SVI(steps=6, guide=guide, num_posterior_samples=40, num_diagnostic_samples=100)
    result = probkit.fit(learned, y, engine=engine, seed=0)
    assert result.posterior.draws["x"].shape == (1, 40, 61, 1)
    assert result.diagnostics["khat"] < 0.7
    exact = guide.sample(1).elbo  # a linear drift
    assert result.diagnostics["elbo"] == pytest.approx(exact.item(), abs=1e-6)
    assert drift.slope.item() != -0.5


def test_hurst_index_with_a_prior():
    prior = dist.Uniform(torch.tensor(0.1, dtype=F64), torch.tensor(0.95, dtype=F64))
    _, y = linear_sde(lambda t, x: -x, 0.8).simulate(seed=2)
    sde = linear_sde(lambda t, x: -x, prior)
    guide = MarkovGaussianGuide(sde, y)
    engine = SVI(
        steps=40,
        learning_rate=0.15,
        guide=guide,
        window=20,
        num_posterior_samples=50,
        num_diagnostic_samples=0,
    )
    result = engine.fit(sde, y, seed=0)
    # the evidence at a grid of indices is exact for a linear drift
    grid = torch.linspace(0.1, 0.95, 16, dtype=F64)
    with torch.no_grad():
        found = [MarkovGaussianGuide(linear_sde(lambda t, x: -x, h), y).sample(1) for h in grid]
    weight = torch.softmax(torch.stack([drawn.elbo for drawn in found]), 0)
    mean = float((weight * grid).sum())
    sd = float((weight * (grid - mean) ** 2).sum().sqrt())
    draws = result.posterior.draws["hurst"].flatten()
    assert abs(float(draws.mean()) - mean) < 0.7 * sd
    assert 0.5 * sd < float(draws.std()) < 1.5 * sd
    with pytest.raises(ConfigurationError, match="within its range"):
        linear_sde(lambda t, x: -x, dist.Normal(0.5, 0.1))


@pytest.mark.filterwarnings("ignore:Encountered NaN")
def test_breakdown_during_a_fit_keeps_the_last_good_parameters():
    _, y = linear_sde(lambda t, x: -3 * x).simulate(seed=0)
    drift = line(-1.0)

    class Broken(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = drift

        def forward(self, t, x):
            return torch.where(drift.slope < -1.15, math.nan, drift(t, x))

    sde = linear_sde(Broken())
    guide = MarkovGaussianGuide(sde, y)
    engine = SVI(
        steps=40, learning_rate=0.05, guide=guide, max_retries=0, num_posterior_samples=4, window=2
    )
    result = engine.fit(sde, y, seed=0)
    assert not result.status.ok and "step" in result.detail
    assert -1.15 <= drift.slope.item() < -1.0
    assert math.isfinite(result.diagnostics["elbo"])


def test_diffusion_is_checked_along_the_path():
    sde = linear_sde(lambda t, x: -x)
    _, y = sde.simulate(seed=0)
    wrong = FractionalSDE(
        lambda t, x: -x,
        lambda t, x: 1 - 10 * x.square(),
        0.7,
        dt=0.1,
        num_steps=60,
        observed=sde.observed,
    )
    with pytest.raises(ConfigurationError, match="positive along the path"):
        MarkovGaussianGuide(wrong, y + 1)
    with pytest.raises(ConfigurationError, match="stationary increments"):
        MarkovApproxFBM(0.7, kind="II")
