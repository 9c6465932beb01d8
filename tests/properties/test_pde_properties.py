"""PDE solutions: linear in the data, carried along by shifts, stretches and swaps of axes."""

from __future__ import annotations

import warnings

import torch
from hypothesis import given
from hypothesis import strategies as st

from probkit.pde import PDE, Box, Condition, GPSolver, Problem, Term
from tests.properties.examples import F64, tried, uniform

FREQUENCIES = st.integers(1, 4)


def solved(problem):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # coarse grids: both sides have the same
        return GPSolver().fit(problem)


def line(frequency, *, scale=1.0, low=0.0, length=1.0, num=60):
    """u'' = f with the solution scale sin(frequency pi s), s the share of the way."""
    rate = frequency * torch.pi / length

    def source(x):
        return -scale * rate**2 * torch.sin(rate * (x - low))

    ends = [Condition.dirichlet((0, end)) for end in (0, 1)]
    return Problem(PDE([Term(1.0, (2,))]), Box([(low, low + length)], num), ends, source)


def plane(source, sizes=(20, 22)):
    faces = [Condition.dirichlet((axis, end)) for axis in (0, 1) for end in (0, 1)]
    pde = PDE([Term(1.0, (2, 0)), Term(1.0, (0, 2))])
    return Problem(pde, Box([(0.0, 1.0), (0.0, 1.0)], sizes), faces, source)


def same(found, expected, tolerance=1e-6):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@tried(3)
@given(frequency=FREQUENCIES, scale=st.sampled_from([1e-6, -3.0, 1e6]))
def test_the_solution_of_a_linear_equation_is_linear(frequency, scale):
    x = torch.linspace(0.05, 0.95, 11, dtype=F64)
    plain, scaled = solved(line(frequency)), solved(line(frequency, scale=scale))
    same(scaled.mean(x) / scale, plain.mean(x))
    same(plain.mean(x), torch.sin(frequency * torch.pi * x))


@tried(3)
@given(
    frequency=FREQUENCIES, low=st.sampled_from([-7.0, 100.0]), length=st.sampled_from([0.01, 5.0])
)
def test_shifted_and_stretched_domains(frequency, low, length):
    share = torch.linspace(0.05, 0.95, 11, dtype=F64)
    plain = solved(line(frequency)).mean(share)
    same(solved(line(frequency, low=low, length=length)).mean(low + length * share), plain)


@tried(2)
@given(first=FREQUENCIES, second=FREQUENCIES)
def test_swapped_axes(first, second):
    def source(x):
        return torch.sin(first * x[..., 0]) * torch.cos(second * x[..., 1])

    points = uniform(9, 2, seed=first)
    plain = solved(plane(source)).mean(points)
    turned = solved(plane(lambda x: source(x.flip(-1)), (22, 20))).mean(points.flip(-1))
    same(turned, plain, 1e-7)


@tried(2)
@given(first=FREQUENCIES, second=FREQUENCIES, weight=st.floats(-2.0, 2.0))
def test_solutions_superpose(first, second, weight):
    def one(k):
        return lambda x: torch.sin(k * torch.pi * x[..., 0]) * torch.sin(torch.pi * x[..., 1])

    points = uniform(9, 2, seed=second)
    a, b = (solved(plane(one(k))).mean(points) for k in (first, second))
    both = solved(plane(lambda x: one(first)(x) + weight * one(second)(x))).mean(points)
    same(both, a + weight * b, 1e-6)


def test_draws_agree_with_the_moments_and_ignore_the_order_of_points():
    solution = solved(line(2))
    x = torch.tensor([0.2, 0.7, 0.4], dtype=F64)
    same(solution.mean(x[[2, 0, 1]]), solution.mean(x)[[2, 0, 1]])
    same(solution.sd(x[[2, 0, 1]]), solution.sd(x)[[2, 0, 1]])
