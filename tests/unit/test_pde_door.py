"""What the PDE solver refuses or tells: free solutions, boxes, points outside, zero problems."""

import math

import numpy as np
import pytest
import torch

from probkit.errors import (
    ConfigurationError,
    DataError,
    DtypeError,
    ExtrapolationWarning,
    ShapeError,
)
from probkit.pde import (
    PDE,
    Box,
    Condition,
    GPSolver,
    Points,
    Problem,
    Term,
    UnsolvableError,
)

ENDS = [Condition.dirichlet((0, side)) for side in (0, 1)]
FACES = [Condition.dirichlet((axis, side)) for axis in (0, 1) for side in (0, 1)]


def line(terms, ends=ENDS, source=lambda x: torch.sin(2 * x), length=math.pi):
    return Problem(PDE(terms), Box([(0.0, length)], 60), ends, source)


def helmholtz(shift):
    def source(x):
        return torch.sin(2 * math.pi * x[:, 0]) * torch.sin(math.pi * x[:, 1])

    pde = PDE([Term(1.0, (2, 0)), Term(1.0, (0, 2)), Term(shift, (0, 0))])
    return Problem(pde, Box([(0.0, 1.0)] * 2, 16), FACES, source)


ROBIN = [ENDS[0], Condition.robin((0, 1), weight=1.0, slope=-math.tan(2.0) / 2)]


def sine(x):
    return torch.sin(2 * math.pi * x)


def damped(x):
    """Of u = sin 2 pi x."""
    return (1 - 3 * math.pi**2) * sine(x) + 4 * math.pi * torch.cos(2 * math.pi * x)


def quartic(x):
    """u'' + 4 u of u = x^2 (x - 1)^2."""
    return 12 * x**2 - 12 * x + 2 + 4 * x**2 * (x - 1) ** 2


# every source has a solution, to which any multiple of the function named may be added
@pytest.mark.parametrize(
    "problem",
    [
        line([Term(1.0, (2,)), Term(1.0, (0,))]),  # sin x
        line([Term(1.0, (2,)), Term(4.0, (0,))], ROBIN, quartic, 1.0),  # sin 2x
        line(  # exp(-x) sin pi x
            [Term(1.0, (2,)), Term(2.0, (1,)), Term(1 + math.pi**2, (0,))], ENDS, damped, 1.0
        ),
        line(  # sin pi x
            [Term(torch.exp, (2,)), Term(lambda x: math.pi**2 * torch.exp(x), (0,))],
            ENDS,
            lambda x: -3 * math.pi**2 * torch.exp(x) * sine(x),
            1.0,
        ),
    ],
    ids=["dirichlet", "robin", "damped", "variable"],
)
def test_a_line_with_a_free_function_is_refused(problem):
    with pytest.raises(UnsolvableError, match="leave part of the solution free"):
        GPSolver().fit(problem)


def test_a_line_near_resonance_is_solved():
    problem = line([Term(1.0, (2,)), Term(1.0001, (0,))])
    x = torch.linspace(0.0, math.pi, 21, dtype=torch.float64)
    found = GPSolver().fit(problem).mean(x)
    torch.testing.assert_close(found, torch.sin(2 * x) / (1.0001 - 4), rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["separable", "rows"])
def test_a_box_with_a_free_function_is_refused(method):
    with pytest.raises(UnsolvableError, match="an eigenvalue"):
        GPSolver(method=method).fit(helmholtz(2 * math.pi**2))


def test_a_box_near_resonance_is_solved():
    solution = GPSolver().fit(helmholtz(2 * math.pi**2 + 0.1))
    x = torch.tensor([[0.3, 0.4]], dtype=torch.float64)
    exact = math.sin(0.6 * math.pi) * math.sin(0.4 * math.pi) / (0.1 - 3 * math.pi**2)
    assert abs(float(solution.mean(x)[0]) - exact) < 1e-6


def test_spread_covers_what_the_features_cannot_meet():
    x = torch.linspace(0.05, 3.1, 50, dtype=torch.float64)
    ends = [Condition.dirichlet((0, 0), 0.0), Condition.dirichlet((0, 1), 1.0)]
    solution = GPSolver().fit(line([Term(1.0, (2,))], ends, 0.0))
    error = (solution.mean(x) - x / math.pi).abs()
    assert float(error.max()) < 1e-6
    assert float(error.max()) < 5 * float(solution.sd(x).max())


def test_nothing_given_is_solved_by_nothing():
    x = torch.tensor([1.0], dtype=torch.float64)
    solution = GPSolver().fit(line([Term(1.0, (2,))], source=0.0))
    assert float(solution.mean(x)[0]) == 0.0
    assert float(solution.sd(x)[0]) < 1e-12
    # in two dimensions too
    pde = PDE([Term(1.0, (2, 0)), Term(1.0, (0, 2))])
    flat = GPSolver().fit(Problem(pde, Box([(0.0, 1.0)] * 2, 16), FACES, 0.0))
    assert float(flat.mean(torch.tensor([[0.3, 0.4]], dtype=torch.float64))[0]) == 0.0


def test_points_outside_are_told_and_points_that_are_none_refused():
    solution = GPSolver().fit(line([Term(1.0, (2,))]))
    for ask in (solution.mean, solution.sd, solution.variance, lambda x: solution.on_grid([x])):
        with pytest.warns(ExtrapolationWarning, match="outside the box") as caught:
            ask(torch.tensor([1.0, 100.0], dtype=torch.float64))
        assert len(caught) == 1
        with pytest.raises(DataError, match="NaN"):
            ask(torch.tensor([1.0, math.nan], dtype=torch.float64))
    solution.mean(torch.tensor([0.0, math.pi]))  # the ends in float32 lie inside


@pytest.mark.parametrize(
    ("bounds", "num"),
    [
        ([(math.nan, 1.0)], 10),
        ([(0.0, math.inf)], 10),
        ([(0.0, 1.0)], [10, 10]),
        ([(0.0, 1.0)], 10.5),
        ([(1.0, 0.0)], 10),
    ],
)
def test_boxes_that_are_none(bounds, num):
    with pytest.raises(ConfigurationError, match="A box needs"):
        Box(bounds, num)


def test_numbers_of_numpy_are_numbers():
    box = Box([(np.float64(0.0), np.int64(1))], np.int64(10))
    assert box.sizes == (10,)
    assert Box([(0.0, 1.0)] * 2, np.array([5, 6])).sizes == (5, 6)
    assert Term(1.0, (np.int64(2),)).orders == (2,)


def test_quantiles_of_a_solution():
    posterior = GPSolver().fit(line([Term(1.0, (2,))])).result.posterior
    found = posterior.quantile([0.1, 0.5])["u"]
    torch.testing.assert_close(found[1], posterior.mean()["u"])
    assert posterior.quantile(0.5)["u"].shape == posterior.mean()["u"].shape


def test_arrays_and_lists_are_taken():
    box, ends = Box([(0.0, 1.0)], 30), [Condition.dirichlet([0, s]) for s in (0, 1)]
    x = np.linspace(0.0, 1.0, 30)
    by_array = GPSolver().fit(Problem(PDE([Term(1 + x, (2,))]), box, ends, 1.0))
    by_tensor = GPSolver().fit(Problem(PDE([Term(torch.tensor(1 + x), (2,))]), box, ends, 1.0))
    assert torch.equal(by_array.mean([0.3]), by_tensor.mean([0.3]))
    assert str(Term(x, (2,))) == "a(x) u_xx"
    assert Condition.dirichlet(np.array([[0.1, 0.2]])).where.shape == (1, 2)
    mine = np.array([0.0, 0.5, 2.0])
    points = Points(mine, bounds=np.array([[0.0, 2.0]]))
    mine[0] = 9.0
    assert float(points.x[0, 0]) == 0.0
    assert points.bounds == [(0.0, 2.0)]


@pytest.mark.parametrize(
    ("made", "error", "name"),
    [
        (lambda: Points([0.0, math.nan]), DataError, "Points.x"),
        (lambda: Points([1.0, 1.0, 1.0]), DataError, "Points.x"),
        (lambda: Points([0.0, 1.0], bounds=[(1.0, 0.0)]), ConfigurationError, "Points.bounds"),
        (lambda: Points(np.zeros((2, 2, 2))), ShapeError, "Points.x"),
        (lambda: Term("a", (2,)), DtypeError, "Term.coefficient"),
        (lambda: Condition.dirichlet((0.5, 0)), ConfigurationError, "Condition.where"),
        (lambda: Condition.dirichlet((0, 0), noise=-1.0), ConfigurationError, "noise"),
        (lambda: GPSolver(band_limit=-3.0), ConfigurationError, "band_limit"),
        (lambda: GPSolver(max_features=50.5), ConfigurationError, "max_features"),
        (lambda: GPSolver(num_sweeps=1.5), ConfigurationError, "num_sweeps"),
        (lambda: GPSolver(extension=math.nan), ConfigurationError, "extension"),
    ],
)
def test_parts_that_are_none_are_named(made, error, name):
    with pytest.raises(error, match=name):
        made()


@pytest.mark.parametrize(
    ("data", "error", "name"),
    [
        (([1.0], [1.0], -1.0), ConfigurationError, "noise"),
        (([1.0], [1.0], math.nan), ConfigurationError, "noise"),
        (([1.0], [1.0], torch.ones(1)), ConfigurationError, "noise"),
        (([math.nan], [1.0], 0.1), DataError, "points"),
        (([1.0], [1.0]), ConfigurationError, "data"),
        (([[1.0, 2.0]], [1.0], 0.1), ShapeError, "points"),
    ],
)
def test_data_that_are_none_are_named(data, error, name):
    with pytest.raises(error, match=name):
        GPSolver().fit(Problem(PDE([Term(1.0, (2,))]), Box([(0.0, 3.0)], 20), ENDS, 1.0, data=data))


@pytest.mark.parametrize("derivative", [(1, 0), (-1,), 1, (0.5,), ()])
def test_derivatives_are_orders(derivative):
    solution = GPSolver().fit(line([Term(1.0, (2,))]))
    x = torch.tensor([1.0], dtype=torch.float64)
    for ask in (solution.mean, solution.sd, lambda x, **k: solution.sample(x, 2, **k)):
        with pytest.raises(ConfigurationError, match="derivative"):
            ask(x, derivative=derivative)
    with pytest.raises(ConfigurationError, match="derivative"):
        solution.on_grid([x], derivative=derivative)
