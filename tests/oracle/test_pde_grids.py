"""Grids in two and three dimensions: every route against exact solutions and dense algebra."""

import math

import pytest
import torch

from probkit.errors import ConfigurationError, DataError, FitWarning
from probkit.linalg.sketched import sampled_root, sketched_solve
from probkit.linalg.weight_space import weight_space_posterior
from probkit.pde import (
    CASES,
    PDE,
    Box,
    Condition,
    GPSolver,
    Mask,
    PDESolution,
    Problem,
    Term,
    UnsolvableError,
)
from probkit.pde.grid_rows import DenseRows
from probkit.pde.newton import damped_step

LAPLACE = PDE([Term(1.0, (2, 0)), Term(1.0, (0, 2))])


def smooth(x):
    return torch.sin(5 * x[:, 0]) * torch.cos(4 * x[:, 1]) + x[:, 0]


def smooth_source(x):
    return -41 * torch.sin(5 * x[:, 0]) * torch.cos(4 * x[:, 1])


def square(num=60, source=smooth_source, **kwargs):
    sides = [Condition.dirichlet((a, s), smooth) for a in (0, 1) for s in (0, 1)]
    return Problem(LAPLACE, Box([(0.0, 1.0)] * 2, num), sides, source, **kwargs)


def inside_error(solution, exact, num=37):
    axis = torch.linspace(0, 1, num, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    truth = exact(grid)
    return float((solution.on_grid([axis, axis]).flatten() - truth).norm() / truth.norm())


@pytest.mark.parametrize(
    ("name", "num", "bound"),
    [
        ("poisson2d_sum", 100, 1e-8),
        ("allen_cahn2d_mix", 160, 1e-6),
        ("advection_sin200", 140, 1e-6),
    ],
)
def test_cases_of_the_paper_on_squares(name, num, bound):
    case = CASES[name]
    solution = GPSolver(max_products=1200).fit(case.problem(num))
    assert solution.status.name == "CONVERGED"
    assert solution.diagnostics["newton_steps"] <= 6
    assert case.error(solution, 100) < bound


def test_separable_and_rows_agree():
    fast = GPSolver(method="separable").fit(square())
    rows = GPSolver(method="rows").fit(square())
    assert inside_error(fast, smooth) < 1e-9
    assert inside_error(rows, smooth) < 1e-8
    x = torch.rand(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    slopes = [s.mean(x, derivative=(1, 0)) for s in (fast, rows)]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-5, atol=1e-6)
    assert float(fast.sd(x).max()) < 1e-6


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_newton_settles_where_a_residual_remains(noise):
    # the grid is coarse or the data noisy: the least of the residual alone is not the answer's
    def start(x):
        waves = ((0.6, 1), (0.4, 3), (-0.3, 4))
        return sum(a * torch.sin(k * math.pi * x[:, 0]) for a, k in waves)

    terms = [Term(1.0, (0, 1)), Term(-0.01, (2, 0)), Term(-0.5, (0, 0))]
    fronts = PDE(terms, nonlinear=lambda u: 0.5 * u**3)
    known = [*(Condition.dirichlet((0, side)) for side in (0, 1)), Condition.initial(1, start)]
    problem = Problem(fronts, Box([(-1.0, 1.0), (0.0, 1.0)], (20, 16)), known, 0.0, noise=noise)
    solution = GPSolver().fit(problem)
    assert solution.diagnostics["method"] == "rows"
    assert solution.status.name == "CONVERGED"
    axes = [torch.linspace(-1, 1, 41, dtype=torch.float64), torch.ones(1, dtype=torch.float64)]
    at_start = torch.cartesian_prod(axes[0], 0 * axes[1])
    torch.testing.assert_close(solution.mean(at_start), start(at_start), rtol=0, atol=0.02)


def test_damped_step_halves_or_refuses_what_grows():
    old, far = torch.tensor([1.0]), torch.tensor([-7.0])
    found = damped_step(lambda u: float(u.abs()), old, far, 1e-12)
    assert found.tolist() == [-1.0]  # the longest of the halved steps that grows nothing
    with pytest.raises(UnsolvableError, match="does not reduce"):
        damped_step(lambda u: 1 + 1e-6 * float((u - 1).abs()), old, far, 1e-12)


def test_three_dimensions():
    def exact(x):
        return torch.sin(4 * x).prod(1) + x[:, 2]

    pde = PDE([Term(1.0, tuple(2 * (j == k) for j in range(3))) for k in range(3)])
    sides = [Condition.dirichlet((a, s), exact) for a in range(3) for s in (0, 1)]
    box = Box([(0.0, 1.0)] * 3, 34)
    problem = Problem(pde, box, sides, lambda x: -48 * torch.sin(4 * x).prod(1))
    solution = GPSolver().fit(problem)
    assert solution.diagnostics["method"] == "separable"
    x = torch.rand(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float((solution.mean(x) - exact(x)).abs().max()) < 1e-5


def test_standing_wave_from_its_characteristics():
    speed = 6 * math.pi

    def exact(x):
        return torch.sin(speed * x[:, 0]) * torch.cos(speed * x[:, 1])

    pde = PDE([Term(1.0, (0, 2)), Term(-1.0, (2, 0))])
    known = [Condition.dirichlet((0, s)) for s in (0, 1)]
    known += [Condition.initial(1, exact), Condition.velocity(1)]
    solution = GPSolver().fit(Problem(pde, Box([(0.0, 1.0)] * 2, 60), known, 0.0))
    assert inside_error(solution, exact) < 1e-6


def test_equation_written_as_a_function():
    pde = PDE([], lambda uxx, uyy, u: uxx + uyy + u**3 - u, [(2, 0), (0, 2), (0, 0)])
    problem = square(48, lambda x: smooth_source(x) + smooth(x) ** 3 - smooth(x))
    written = Problem(pde, problem.domain, problem.conditions, problem.source)
    solution = GPSolver().fit(written)
    assert solution.status.name == "CONVERGED"
    assert inside_error(solution, smooth) < 1e-6


def test_disc_as_a_mask_and_saved(tmp_path):
    angle = torch.arange(150, dtype=torch.float64) * math.tau / 150
    rim = torch.stack([angle.cos(), angle.sin()], 1)
    mask = Mask(Box([(-1.0, 1.0)] * 2, 30), lambda x: x.square().sum(1) < 1)
    known = [Condition.dirichlet(rim, smooth)]
    solution = GPSolver(max_products=300).fit(Problem(LAPLACE, mask, known, smooth_source))
    x = 0.6 * rim[::7]
    torch.testing.assert_close(solution.mean(x), smooth(x), rtol=1e-4, atol=1e-5)
    solution.save(tmp_path)
    loaded = PDESolution.load(tmp_path)
    torch.testing.assert_close(loaded.mean(x), solution.mean(x))
    torch.testing.assert_close(loaded.sd(x), solution.sd(x))


def test_weight_space_exact_and_iterative_agree():
    generator = torch.Generator().manual_seed(0)
    size = 1600
    rows = torch.randn(400, size, generator=generator, dtype=torch.float64)
    rows = rows / torch.arange(1, size + 1, dtype=torch.float64)
    block = DenseRows(rows, torch.randn(400, generator=generator, dtype=torch.float64), 3.0)
    exact = weight_space_posterior([block], generator)
    iterative = weight_space_posterior([block], generator, max_exact=100, num_draws=40)
    torch.testing.assert_close(iterative.mean, exact.mean, rtol=1e-6, atol=1e-8)
    precision = torch.eye(size).double() + 9 * rows.mT @ rows
    torch.testing.assert_close(
        exact.mean, torch.linalg.solve(precision, 9 * rows.mT @ block.target)
    )
    sd = torch.linalg.inv(precision).diagonal()[:3].sqrt()
    torch.testing.assert_close(iterative.draws[:, :3].std(0), sd, rtol=0.4, atol=0)
    gram = 9 * rows @ rows.mT + torch.eye(400).double()
    normal = torch.distributions.MultivariateNormal(torch.zeros(400).double(), gram)
    expected = float(normal.log_prob(3 * block.target)) + 400 * math.log(3)
    assert math.isclose(exact.log_evidence, expected, rel_tol=1e-9)


def test_sketched_solve_equals_least_squares():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(500, 30, generator=generator, dtype=torch.float64)
    rows = rows * torch.logspace(0, -9, 30, dtype=torch.float64)
    block = DenseRows(rows, torch.randn(500, generator=generator, dtype=torch.float64))
    root = sampled_root([block], 1e-28, generator)
    present = torch.zeros(30, dtype=torch.float64)
    found = sketched_solve([block], [block.target], root, 1e-28, present=present)
    expected = torch.linalg.lstsq(rows, block.target[:, None], driver="gelsd").solution[:, 0]
    assert found.converged
    torch.testing.assert_close(rows @ found.value, rows @ expected, rtol=1e-6, atol=1e-7)


def test_noise_and_data_on_a_square():
    box = Box([(0.0, 1.0)] * 2, 24)
    f = smooth_source(box.points())
    sd = 0.05 * float(f.std())
    generator = torch.Generator().manual_seed(0)
    noisy = f + sd * torch.randn(f.shape, generator=generator, dtype=torch.float64)
    solution = GPSolver().fit(square(24, noisy, noise=sd))
    assert solution.diagnostics["method"] == "rows"
    assert inside_error(solution, smooth) < 0.05
    assert math.isfinite(solution.log_evidence)
    x = box.points()[::37]
    draws = solution.sample(x, 4000, seed=1)
    torch.testing.assert_close(draws.std(0), solution.sd(x), rtol=0.1, atol=1e-6)


def test_mistakes_on_grids_are_named():
    box = Box([(0.0, 1.0)] * 2, 20)
    sides = [Condition.dirichlet((a, s), float(a)) for a in (0, 1) for s in (0, 1)]
    with pytest.raises(DataError, match="corner"):
        GPSolver().fit(Problem(LAPLACE, box, sides, 0.0))
    with pytest.raises(ConfigurationError, match="does not fit"):
        GPSolver(method="separable").fit(square(20, 0.0, noise=0.1))
    with pytest.raises(ConfigurationError, match="inside"):
        Mask(box, lambda x: x[:, 0] > 2)
    slopes = [Condition.neumann((a, s)) for a in (0, 1) for s in (0, 1)]
    with pytest.raises(ConfigurationError, match="constant free"):
        GPSolver().fit(Problem(LAPLACE, box, slopes, lambda x: torch.cos(math.pi * x[:, 0])))


def test_contradicting_outflow_is_told():
    def exact(x):
        return torch.sin(5 * (x[:, 0] - x[:, 1]))

    pde = PDE([Term(1.0, (0, 1)), Term(1.0, (1, 0))])
    known = [Condition.dirichlet((0, 0), exact), Condition.initial(1, exact)]
    known.append(Condition.dirichlet((0, 1), lambda x: exact(x) + 0.1 * x[:, 1]))
    with pytest.warns(FitWarning, match="more conditions"):
        GPSolver().fit(Problem(pde, Box([(0.0, 1.0)] * 2, 24), known, 0.0))
