"""Unknown coefficients of a PDE against dense densities, and the engines among themselves."""

import math

import pyro.distributions as dist
import pytest
import torch
from gpytorch.priors import LogNormalPrior
from torch.distributions import MultivariateNormal, biject_to

from probkit.distributions import Centered
from probkit.errors import ConfigurationError, FitWarning
from probkit.infer import NUTS, SVI
from probkit.kernels import SpectralMixtureKernel
from probkit.pde import (
    PDE,
    Box,
    Condition,
    GPSolver,
    InverseSolution,
    InverseSolver,
    Mask,
    Problem,
    Term,
    Unknown,
)
from probkit.pde.harmonics import product_rows
from probkit.pde.spectrum import density_scales


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def uniform(name, low, high, factor=1.0):
    return Unknown(name, dist.Uniform(number(low), number(high)), factor)


def exact(x):
    return torch.sin(13 * x) + 0.5 * torch.cos(21 * x + 1)


def oscillator(seed=0, *, noise=0.02, nonlinear=None, num_data=25):
    """u'' + 400 u = f with noisy f and values of u."""
    generator = torch.Generator().manual_seed(seed)
    box = Box([(0.0, 1.0)], 60)
    x = box.points()[:, 0]
    f = 231 * torch.sin(13 * x) - 20.5 * torch.cos(21 * x + 1)
    if nonlinear is not None:
        f = f + nonlinear(exact(x))
    f = f + 0.1 * torch.randn(60, generator=generator, dtype=torch.float64)
    at = torch.rand(num_data, generator=generator, dtype=torch.float64)
    y = exact(at) + 0.02 * torch.randn(num_data, generator=generator, dtype=torch.float64)
    pde = PDE([Term(1.0, (2,)), Term(uniform("theta", 100.0, 700.0), (0,))], nonlinear=nonlinear)
    return Problem(pde, box, (), f, noise=0.1, data=(at, y, noise))


def mixture():
    kernel = SpectralMixtureKernel(2)
    kernel.weights, kernel.frequencies = number([1.0, 0.5]), number([2.0, 3.4])
    kernel.lengthscales = number([0.6, 0.6])
    return kernel


def test_evidence_is_the_dense_marginal_density():
    noise = Unknown("noise", dist.LogNormal(number(-4.0), number(1.0)))
    problem = oscillator(noise=noise)
    model = InverseSolver(prior=mixture(), band_limit=8.0).model(problem)
    (side,) = model.sides
    scale = density_scales(side, mixture())
    x, (at, y, _) = problem.domain.points(), problem.data

    def dense(theta, sd):
        rows = product_rows([side], x, (2,)) + theta * product_rows([side], x, (0,))
        rows = torch.cat([rows, product_rows([side], at[:, None], (0,))])
        variance = torch.cat([torch.full((60,), 0.01), torch.full((25,), sd**2)]).double()
        law = MultivariateNormal(
            torch.zeros(85).double(), (rows * scale) @ rows.mT + variance.diag()
        )
        return float(law.log_prob(torch.cat([problem.source, y])))

    def ours(theta, sd):
        return float(model.log_evidence({"theta": number(theta), "noise": number(sd)}))

    first, second = (400.0, 0.02), (380.0, 0.03)
    wanted = dense(*first) - dense(*second)
    assert ours(*first) - ours(*second) == pytest.approx(wanted, rel=1e-6)


def test_engines_agree_and_find_the_coefficient():
    problem = oscillator()
    solution = InverseSolver().fit(problem)
    found = solution.coefficients()["theta"]
    assert abs(found["mean"] - 400) < 4 * found["sd"]
    assert found["low"] < found["mean"] < found["high"]
    assert solution.diagnostics["khat"] < 0.7
    sampled = InverseSolver(NUTS(num_samples=100, num_warmup=60)).fit(problem)
    assert sampled.coefficients()["theta"]["sd"] == pytest.approx(found["sd"], rel=0.3)
    varied = InverseSolver(SVI(steps=300, learning_rate=0.05)).fit(problem)
    assert varied.coefficients()["theta"]["mean"] == pytest.approx(found["mean"], abs=found["sd"])
    x = torch.linspace(0.1, 0.9, 30, dtype=torch.float64)
    score = (solution.mean(x) - exact(x)) / solution.sd(x)
    assert float(score.abs().max()) < 4.5
    slope = 13 * torch.cos(13 * x) - 10.5 * torch.sin(21 * x + 1)
    assert float((solution.mean(x, derivative=(1,)) - slope).norm() / slope.norm()) < 0.02


def test_weights_as_a_site_describe_the_same_posterior():
    problem = oscillator(num_data=12)
    integrated = InverseSolver(band_limit=6.0).fit(problem)
    # a nonlinear part that adds nothing takes the other form of the model
    same = Problem(
        PDE(problem.pde.terms, nonlinear=lambda u: 0 * u),
        *(problem.domain, (), problem.source, problem.noise, problem.data),
    )
    joint = InverseSolver(band_limit=6.0).fit(same)
    first, second = (s.coefficients()["theta"] for s in (integrated, joint))
    assert second["mean"] == pytest.approx(first["mean"], abs=0.3 * first["sd"])
    assert second["sd"] == pytest.approx(first["sd"], rel=0.2)
    x = torch.linspace(0, 1, 20, dtype=torch.float64)
    torch.testing.assert_close(joint.mean(x), integrated.mean(x), rtol=0, atol=0.02)


def test_semilinear_equation():
    solution = InverseSolver(band_limit=6.0).fit(oscillator(nonlinear=lambda u: 30 * u**3))
    found = solution.coefficients()["theta"]
    assert abs(found["mean"] - 400) < 4 * found["sd"]
    assert found["sd"] < 5


def test_noise_fields_and_hyper_parameters_are_sites():
    noise = Unknown("noise", dist.LogNormal(number(-4.0), number(2.0)))
    problem = oscillator(noise=noise)
    kernel = mixture()
    kernel.register_prior("lengthscales_prior", LogNormalPrior(-0.5, 0.5), "lengthscales")
    solution = InverseSolver(prior=kernel, band_limit=8.0).fit(problem)
    assert solution.coefficients()["noise"]["mean"] == pytest.approx(0.02, rel=0.5)
    lengths = solution.result.posterior.mean()["lengthscales"]
    assert lengths.shape == (2,)
    assert bool((lengths > 0).all())
    field = [
        Term(1.0, (2,)),
        Term(uniform("level", 100.0, 700.0), (0,)),
        Term(uniform("tilt", -200.0, 200.0, lambda x: x - 0.5), (0,)),
    ]
    assert "tilt a(x) u" in repr(PDE(field))
    tilted = Problem(PDE(field), *(problem.domain, (), problem.source, 0.1, oscillator().data))
    found = InverseSolver().fit(tilted).coefficients()
    assert abs(found["tilt"]["mean"]) < 4 * found["tilt"]["sd"]
    assert abs(found["level"]["mean"] - 400) < 4 * found["level"]["sd"]


def test_noise_of_the_source_alone():
    generator = torch.Generator().manual_seed(0)
    box = Box([(0.0, 1.0)], 120)
    f = -1600 * torch.sin(40 * box.points()[:, 0])
    f = f + 30 * torch.randn(120, generator=generator, dtype=torch.float64)
    ends = [Condition.dirichlet((0, s), math.sin(40.0 * s)) for s in (0, 1)]
    noise = Unknown("noise", dist.LogNormal(number(5.0), number(2.0)))
    problem = Problem(PDE([Term(1.0, (2,))]), box, ends, f, noise=noise)
    solution = InverseSolver(num_scans=100).fit(problem)
    found = solution.coefficients()["noise"]
    assert abs(found["mean"] - 30) < 4 * found["sd"]
    assert found["sd"] < 4
    # the noise on the source must not pass for power over the whole band
    assert solution.diagnostics["num_features"] < 80


def test_diffusivity_in_space_and_time(tmp_path):
    def heat(x):
        return torch.exp(-0.1 * math.pi**2 * x[:, 1]) * torch.sin(math.pi * x[:, 0])

    generator = torch.Generator().manual_seed(0)
    at = torch.rand(40, 2, generator=generator, dtype=torch.float64)
    y = heat(at) + 0.01 * torch.randn(40, generator=generator, dtype=torch.float64)
    kappa = uniform("kappa", -1.0, -0.01)
    pde = PDE([Term(1.0, (0, 1)), Term(kappa, (2, 0))])
    known = [Condition.dirichlet((0, s), noise=1e-3) for s in (0, 1)]
    known.append(Condition.initial(1, heat, noise=1e-3))
    box = Box([(0.0, 1.0)] * 2, 16)
    problem = Problem(pde, box, known, 0.0, noise=0.01, data=(at, y, 0.01))
    solution = InverseSolver(num_scans=20, max_features=100).fit(problem)
    assert solution.diagnostics["misfit_equation"] < 1
    found = solution.coefficients()["kappa"]
    assert abs(found["mean"] + 0.1) < 4 * found["sd"]
    solution.save(tmp_path)
    again = InverseSolution.load(tmp_path)
    assert again.coefficients()["kappa"]["sd"] == pytest.approx(found["sd"])
    torch.testing.assert_close(again.mean(at), solution.mean(at))


def test_centered_prior_keeps_the_density_and_moves_the_start():
    base = dist.Uniform(number(1.0), number(3.0))
    law = Centered(base, number(2.5), number(0.01))
    transform = biject_to(law.support)
    assert float(transform(number(0.0))) == pytest.approx(2.5)
    assert float(transform(number(1.0))) == pytest.approx(2.5, abs=0.01)
    value = number(2.2)
    assert law.log_prob(value) == base.log_prob(value)
    assert float(transform(transform.inv(value))) == pytest.approx(2.2)


def test_mistakes_are_named():
    problem = oscillator()
    with pytest.raises(ConfigurationError, match="InverseSolver"):
        GPSolver().fit(problem)
    known = Problem(PDE([Term(1.0, (2,))]), problem.domain, (), 0.0, data=problem.data)
    with pytest.raises(ConfigurationError, match="nothing unknown"):
        InverseSolver().fit(known)
    terms = [Term(uniform("a", 0.0, 1.0), (2,)), Term(uniform("a", 0.0, 2.0), (0,))]
    twice = Problem(PDE(terms), problem.domain, (), 0.0, data=problem.data)
    with pytest.raises(ConfigurationError, match="two priors"):
        InverseSolver().fit(twice)
    flat = PDE([Term(uniform("a", 0.0, 1.0), (2, 0)), Term(1.0, (0, 2))])
    mask = Mask(Box([(0.0, 1.0)] * 2, 8), lambda x: x[:, 0] < 0.5)
    with pytest.raises(ConfigurationError, match="Points"):
        InverseSolver().fit(Problem(flat, mask, (), 0.0, data=(torch.rand(3, 2), 0.0, 0.1)))


def test_a_prior_that_is_too_narrow_is_told():
    problem = oscillator()
    narrow = PDE([Term(1.0, (2,)), Term(uniform("theta", 300.0, 395.0), (0,))])
    shifted = Problem(narrow, *(problem.domain, (), problem.source, 0.1, problem.data))
    with pytest.warns(FitWarning, match="widen"):
        InverseSolver().fit(shifted)
