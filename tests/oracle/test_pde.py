"""The PDE solver against exact solutions, dense Gaussian conditioning and recomputed residuals."""

import math
import warnings

import pytest
import torch

from probkit.errors import (
    ConfigurationError,
    DataError,
    FitWarning,
    NumericalError,
    ShapeError,
)
from probkit.linalg.whitened import whitened_solve
from probkit.pde import (
    CASES,
    PDE,
    Box,
    Condition,
    GPSolver,
    PDESolution,
    Points,
    Problem,
    Term,
    UnsolvableError,
)
from probkit.pde.harmonics import Harmonics, product_rows

ENDS = (Condition.dirichlet((0, 0)), Condition.dirichlet((0, 1)))
LAPLACE = PDE([Term(1.0, (2,))])


def relative_error(solution, exact, low, high):
    x = torch.linspace(low, high, 300, dtype=torch.float64)
    return float((solution.mean(x) - exact(x)).norm() / exact(x).norm())


@pytest.mark.parametrize(
    ("name", "bound"),
    [
        ("poisson_mix", 1e-11),
        ("poisson_sin6cos100", 1e-10),
        ("poisson_sin500", 1e-9),
        ("allen_cahn_sin100", 1e-9),
    ],
)
def test_cases_of_the_paper_by_one_set_of_defaults(name, bound):
    case = CASES[name]
    problem = case.problem()
    solution = GPSolver().fit(problem)
    assert solution.status.name == "CONVERGED"
    assert solution.diagnostics["newton_steps"] <= 6
    assert relative_error(solution, case.solution, *problem.domain.bounds[0]) < bound
    assert not solution.diagnostics["under_resolved"]


def test_two_points_a_wavelength():
    case = CASES["poisson_sin100"]
    with pytest.warns(FitWarning, match="Nyquist"):
        solution = GPSolver().fit(case.problem(210))
    assert relative_error(solution, case.solution, 0, 2 * math.pi) < 1e-10
    assert not solution.diagnostics["under_resolved"]


def test_aliased_source_is_flagged():
    with pytest.warns(FitWarning, match="too coarse"):
        solution = GPSolver().fit(CASES["poisson_sin100"].problem(150))
    assert solution.diagnostics["under_resolved"]


def test_samples_near_nyquist_are_flagged():
    x = torch.linspace(0, 2 * math.pi, 150, dtype=torch.float64)
    problem = Problem(LAPLACE, Box([(0, 2 * math.pi)], 150), ENDS, torch.sin(70 * x))
    with pytest.warns(FitWarning, match="Nyquist"):
        assert GPSolver().fit(problem).diagnostics["near_nyquist"]


def variable_coefficient():
    def exact(x):
        return torch.sin(50 * x) + x**2

    def slope(x):
        return 50 * torch.cos(50 * x) + 2 * x

    def source(x):
        second = -2500 * torch.sin(50 * x) + 2
        return -(
            3 * torch.cos(3 * x) * slope(x) + (2 + torch.sin(3 * x)) * second
        ) + 10 * x * exact(x)

    pde = PDE(
        [
            Term(lambda x: -(2 + torch.sin(3 * x)), (2,)),
            Term(lambda x: -3 * torch.cos(3 * x), (1,)),
            Term(lambda x: 10 * x, (0,)),
        ]
    )
    conditions = [
        Condition.neumann((0, 0), slope),
        Condition.robin((0, 1), lambda x: exact(x) + slope(x)),
    ]
    return exact, Problem(pde, Box([(0.0, 1.0)], 300), conditions, source)


def test_variable_coefficients_neumann_and_robin():
    exact, problem = variable_coefficient()
    assert relative_error(GPSolver().fit(problem), exact, 0, 1) < 1e-9


def test_scattered_points():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(300, generator=generator, dtype=torch.float64)
    ends = [Condition.dirichlet((0, 0), 0.0), Condition.dirichlet((0, 1), math.sin(50))]
    problem = Problem(LAPLACE, Points(x, [(0.0, 1.0)]), ends, lambda x: -2500 * torch.sin(50 * x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        solution = GPSolver().fit(problem)
    assert relative_error(solution, lambda x: torch.sin(50 * x), 0, 1) < 1e-9


def test_periodic():
    pde = PDE([Term(1.0, (2,)), Term(-1.0, (0,))])
    problem = Problem(
        pde,
        Box([(0.0, 2 * math.pi)], 200),
        [Condition.periodic(0)],
        lambda x: -1601 * torch.sin(40 * x),
    )
    solution = GPSolver().fit(problem)
    assert relative_error(solution, lambda x: torch.sin(40 * x), 0, 2 * math.pi) < 1e-11


def test_residuals_are_those_of_the_returned_solution():
    case = CASES["poisson_mix"]
    problem = case.problem(200)
    solution = GPSolver().fit(problem)
    x = problem.domain.points()[:, 0]
    misfit = solution.mean(x, derivative=(2,)) - problem.source(x)
    expected = float(misfit.norm() / problem.source(x).norm())
    assert math.isclose(solution.residual_norms["equation"], expected, abs_tol=1e-6)


class Bump:
    """Spectral density of exp(-r d^2) cos(2 pi f0 d)."""

    def __init__(self, center, rate):
        self.center, self.rate = center, rate

    def spectral_density(self, frequency):
        peaks = [frequency - self.center, frequency + self.center]
        powers = [torch.exp(-(math.pi**2) * p.square() / self.rate) for p in peaks]
        return math.sqrt(math.pi / self.rate) * sum(powers) / 2


def test_noisy_source_equals_dense_conditioning():
    prior, sd = Bump(3.0, 6.0), 0.5
    generator = torch.Generator().manual_seed(1)
    box = Box([(0.0, 1.0)], 40)
    x = box.points()[:, 0]
    f = -400 * torch.sin(20 * x) + sd * torch.randn(40, generator=generator, dtype=torch.float64)
    ends = [Condition.dirichlet((0, s), math.sin(20 * s), noise=0.01) for s in (0, 1)]
    solver = GPSolver(prior=prior, band_limit=12.0, extension=3.5)
    solution = solver.fit(Problem(LAPLACE, box, ends, f, noise=sd))

    def kernel(a, b):
        d = (a[:, None] - b[None]).clone().requires_grad_(True)
        k = torch.exp(-6 * d**2) * torch.cos(2 * math.pi * 3 * d)
        found = [k]
        for _ in range(4):
            found.append(torch.autograd.grad(found[-1].sum(), d, create_graph=True)[0])
        return [k.detach() for k in found]

    e, t = torch.tensor([0.0, 1.0], dtype=torch.float64), torch.linspace(0, 1, 21).double()
    ff, fe, ee = kernel(x, x), kernel(x, e), kernel(e, e)
    noise = torch.tensor([sd**2] * 40 + [1e-4] * 2, dtype=torch.float64).diag()
    gram = torch.cat([torch.cat([ff[4], fe[2]], 1), torch.cat([fe[2].mT, ee[0]], 1)]) + noise
    cross = torch.cat([kernel(t, x)[2], kernel(t, e)[0]], 1)
    gain = torch.linalg.solve(gram, cross.mT).mT
    mean = gain @ torch.cat([f, torch.tensor([0.0, math.sin(20.0)], dtype=torch.float64)])
    variance = 1 - (gain * cross).sum(1)
    torch.testing.assert_close(solution.mean(t), mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(solution.variance(t), variance, rtol=1e-4, atol=1e-8)
    draws = solution.sample(t, 20000, seed=2)
    torch.testing.assert_close(draws.std(0), solution.sd(t), rtol=0.05, atol=1e-6)


def test_saved_solution_is_the_same(tmp_path):
    problem = CASES["poisson_mix"].problem(200)
    solution = GPSolver().fit(problem)
    solution.save(tmp_path)
    loaded = PDESolution.load(tmp_path)
    x = torch.linspace(0, 1, 7, dtype=torch.float64)
    torch.testing.assert_close(loaded.mean(x), solution.mean(x))
    torch.testing.assert_close(loaded.sd(x), solution.sd(x))


def test_derivatives_of_products_of_features():
    sides = [Harmonics(0.0, 1.0, 2.0, 3), Harmonics(-1.0, 2.0, 3.0, 2)]
    x = torch.tensor([[0.3, 0.2]], dtype=torch.float64)

    def feature(point):
        return product_rows(sides, point[None], (0, 0))[0]

    hessian = torch.stack(
        [torch.autograd.functional.hessian(lambda p, j=j: feature(p)[j], x[0]) for j in range(35)]
    )
    torch.testing.assert_close(product_rows(sides, x, (1, 1))[0], hessian[:, 0, 1])
    torch.testing.assert_close(product_rows(sides, x, (0, 2))[0], hessian[:, 1, 1])


def test_whitened_solve_equals_the_normal_equations():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(6, 9, generator=generator, dtype=torch.float64)
    y = torch.randn(6, generator=generator, dtype=torch.float64)
    scale = torch.linspace(0.1, 2, 9, dtype=torch.float64)
    found = whitened_solve(rows, y, scale, noise=0.3)
    covariance = (rows.mT @ rows / 0.3 + (1 / scale).diag()).inverse()
    torch.testing.assert_close(found.weights, covariance @ rows.mT @ y / 0.3)
    torch.testing.assert_close(found.variance(torch.eye(9).double()), covariance.diagonal())
    gram = (rows * scale) @ rows.mT + 0.3 * torch.eye(6, dtype=torch.float64)
    normal = torch.distributions.MultivariateNormal(torch.zeros(6).double(), gram)
    assert math.isclose(found.log_evidence, float(normal.log_prob(y)), rel_tol=1e-10)


def test_bad_input_is_refused_at_the_door():
    box = Box([(0.0, 1.0)], 30)
    with pytest.raises(ConfigurationError, match="high end"):
        GPSolver().fit(Problem(LAPLACE, box, ENDS[:1], 1.0))
    with pytest.raises(ShapeError, match="do not fit the points"):
        GPSolver().fit(Problem(LAPLACE, box, ENDS, torch.ones(29, dtype=torch.float64)))
    values = torch.ones(30, dtype=torch.float64)
    values[3] = math.nan
    with pytest.raises(DataError, match="1 value is NaN"):
        GPSolver().fit(Problem(LAPLACE, box, ENDS, values))
    with pytest.raises(ConfigurationError, match="differ in dimension"):
        GPSolver().fit(Problem(LAPLACE, Box([(0, 1), (0, 1)], 9), ENDS, 1.0))
    with pytest.raises(ConfigurationError, match="no such face"):
        GPSolver().fit(Problem(LAPLACE, box, [*ENDS, Condition.dirichlet((1, 0))], 1.0))


def test_slopes_alone_leave_a_constant_free():
    slopes = [Condition.neumann((0, 0)), Condition.neumann((0, 1))]
    box = Box([(0.0, 1.0)], 80)
    problem = Problem(LAPLACE, box, slopes, lambda x: torch.cos(3 * math.pi * x))
    with pytest.warns(FitWarning, match="constant free"):
        solution = GPSolver().fit(problem)
    x = torch.linspace(0, 1, 80, dtype=torch.float64)
    exact = -torch.cos(3 * math.pi * x) / (3 * math.pi) ** 2
    torch.testing.assert_close(solution.mean(x), exact - exact.mean(), rtol=0, atol=1e-9)
    with pytest.raises(NumericalError, match="fluxes"):
        GPSolver().fit(Problem(LAPLACE, box, slopes, lambda x: 1 + 0 * x))


def test_resonance_is_refused():
    pde = PDE([Term(1.0, (2,)), Term((10 * math.pi) ** 2, (0,))])
    box = Box([(0.0, 1.0)], 100)
    with pytest.raises(UnsolvableError, match="condition number") as caught:
        GPSolver().fit(Problem(pde, box, ENDS, lambda x: torch.sin(10 * math.pi * x)))
    # the last iterate comes with it: enormous, or far from meeting the equation, but there
    assert bool(caught.value.iterate.isfinite().all())
    assert len(caught.value.iterate) > 10


def test_layer_takes_the_full_band():
    def exact(x):
        return torch.tanh(40 * (x - 0.5))

    ends = [Condition.dirichlet((0, side), exact) for side in (0, 1)]

    def source(x):
        return -3200 * exact(x) * (1 - exact(x) ** 2)

    solution = GPSolver().fit(Problem(LAPLACE, Box([(0.0, 1.0)], 300), ends, source))
    assert relative_error(solution, exact, 0, 1) < 3e-10


def test_newton_without_a_solution_says_so():
    # the Bratu problem has no solution beyond 3.51
    pde = PDE([Term(1.0, (2,))], nonlinear=lambda u: 20 * torch.exp(u))
    solution = GPSolver().fit(Problem(pde, Box([(0.0, 1.0)], 40), ENDS, 0.0))
    assert solution.status.name != "CONVERGED"


def test_equation_is_echoed():
    pde = PDE([Term(1.0, (0, 1)), Term(-0.5, (2, 0))], lambda u, v: u * v, [(0, 0), (1, 0)])
    assert repr(pde) == "PDE(u_y + -0.5 u_xx + nonlinear(u, u_x) = f)"
