"""The paper's method: its objective against the benchmark's own, and what it returns."""

import math

import pytest
import torch

from benchmarks.baselines.adam_collocation import (
    AdamCollocationBaseline,
    AdamCollocationBaseline2D,
)
from probkit.errors import ConfigurationError, FitWarning
from probkit.kernels import SpectralMixtureKernel
from probkit.pde import PDE, Box, Condition, GPSolver, PDESolution, Problem, Term
from probkit.pde.map_joint import JointDensity

LAPLACE = [Term(1.0, (2,))]


def start(kind, top):
    """A kernel at the start of the authors' scheme."""
    kernel = SpectralMixtureKernel(4, kind=kind)
    kernel.frequencies = torch.linspace(1e-9, top, 4)
    kernel.lengthscales = torch.full((4,), math.sqrt(0.5) if kind == "gaussian" else 1.0)
    return kernel


@pytest.mark.parametrize("kind", ["gaussian", "student"])
def test_objective_on_a_line_is_the_authors(kind):
    scheme = AdamCollocationBaseline(
        torch.cos, (0.3, -0.2), 2.0, 9, 3.0, kind=kind, cubic=True, num_components=4
    )
    u = torch.linspace(-1, 1, 9, dtype=torch.float64)
    scheme.values.data.copy_(u)
    ends = [Condition.dirichlet((0, 0), 0.3), Condition.dirichlet((0, 1), -0.2)]
    pde = PDE(LAPLACE, nonlinear=lambda u: u**3 - u)
    problem = Problem(pde, Box([(0.0, 2.0)], 9), ends, torch.cos)
    precisions = torch.zeros(2, dtype=torch.float64)
    found = JointDensity(problem, [start(kind, 3.0)]).value(u, precisions)
    torch.testing.assert_close(-found.detach(), scheme.loss().detach(), rtol=1e-6, atol=0)


def test_objective_on_a_square_is_the_authors():
    scheme = AdamCollocationBaseline2D(
        lambda x: x[:, 0] * x[:, 1], lambda x: x[:, 0], 1.0, 6, 2.0, num_components=4
    )
    u = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scheme.values.data.copy_(u)
    edge = [Condition.dirichlet((0, s), float(s)) for s in (0, 1)]
    # the corners belong to two faces; the scheme counts each boundary point once
    pde = PDE([Term(1.0, (2, 0)), Term(1.0, (0, 2))])
    problem = Problem(pde, Box([(0.0, 1.0)] * 2, 6), edge, lambda x: x[:, 0] * x[:, 1])
    density = JointDensity(problem, [start("student", 2.0)] * 2)
    found = density.value(u, torch.zeros(2, dtype=torch.float64)).detach()
    gap = u[1:-1, [0, -1]] - density.axes[0][1:-1, None]
    found = found - 200 * 0.5 * gap.square().sum()
    torch.testing.assert_close(-found, scheme.loss().detach(), rtol=1e-6, atol=0)


def test_slopes_and_odd_derivatives_are_the_interpolants():
    slopes = [Condition.neumann((0, 0), 0.5), Condition.robin((0, 1), 0.2, weight=2.0)]
    box = Box([(0.0, 2.0)], 12)
    problem = Problem(PDE([Term(1.0, (1,)), Term(2.0, (0,))]), box, slopes, 0.0)
    kernel = start("gaussian", 1.0)
    density = JointDensity(problem, [kernel])
    x = box.axes()[0]
    u = torch.sin(x)
    residual, conditions = density.misfits(u)
    K = kernel.lag_covariance(x[:, None] - x, event=2) + 1e-6 * torch.eye(12, dtype=x.dtype)
    along = kernel.derivative(x[:, None], x[:, None], 1) @ torch.linalg.solve(K, u)
    torch.testing.assert_close(residual, along + 2 * u, rtol=1e-6, atol=1e-7)
    wanted = torch.stack([along[0] - 0.5, 2 * u[-1] + along[-1] - 0.2])
    torch.testing.assert_close(conditions, wanted, rtol=1e-6, atol=1e-7)


def small():
    def exact(x):
        return torch.sin(20 * x)

    ends = [Condition.dirichlet((0, s), exact) for s in (0, 1)]
    box = Box([(0.0, 2.0)], 40)
    return exact, Problem(PDE(LAPLACE), box, ends, lambda x: -400 * exact(x))


def test_solution_is_a_point_estimate_that_can_be_saved(tmp_path):
    exact, problem = small()
    with pytest.warns(FitWarning, match="still rising"):
        solution = GPSolver(method="map", max_epochs=1000).fit(problem)
    x = torch.linspace(0, 2, 50, dtype=torch.float64)
    error = float((solution.mean(x) - exact(x)).norm() / exact(x).norm())
    assert error < 0.15
    history = solution.result.history["objective"]
    assert len(history) == 1000
    assert history[-1] > history[0]
    assert solution.diagnostics["epochs"] == 1000
    slope = 20 * torch.cos(20 * x)
    gap = solution.mean(x, derivative=(1,)) - slope
    assert float(gap.norm()) < 0.2 * float(slope.norm())
    for refused in (solution.sd, lambda x: solution.sample(x, 2)):
        with pytest.raises(ConfigurationError, match="point estimate"):
            refused(x)
    solution.save(tmp_path)
    again = PDESolution.load(tmp_path)
    torch.testing.assert_close(again.mean(x), solution.mean(x), rtol=1e-9, atol=1e-9)


def test_frozen_parameters_stay_and_the_kernel_given_is_not_touched():
    kernel = start("gaussian", 1.0)
    kernel.raw_frequencies.requires_grad_(False)
    _, problem = small()
    solver = GPSolver(method="map", prior=kernel, max_epochs=5)
    with pytest.warns(FitWarning):
        found = solver.fit(problem).result.posterior.point()
    torch.testing.assert_close(found["frequencies_0"], kernel.frequencies.detach())
    assert bool((found["weights_0"] != kernel.weights.detach()).all())
    assert kernel.raw_lengthscales.requires_grad


def test_what_the_method_does_not_cover_is_refused():
    _, problem = small()
    box = Box([(0.0, 2.0)], 40)
    periodic = Problem(problem.pde, box, [Condition.periodic(0)], 1.0)
    with pytest.raises(ConfigurationError, match="does not fit"):
        GPSolver(method="map").fit(periodic)

    class Density:
        def spectral_density(self, frequency):
            return frequency

    with pytest.raises(ConfigurationError, match="SpectralMixtureKernel"):
        GPSolver(method="map", prior=Density()).fit(problem)
