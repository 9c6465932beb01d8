"""What the fractional processes, kernels and equations take and refuse."""

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from linear_operator.operators import ToeplitzLinearOperator

from probkit.errors import ConfigurationError, DataError, ShapeError
from probkit.fractional import FractionalSDE
from probkit.kernels.fractional import FractionalNoiseKernel
from probkit.sde.exact import simulate
from probkit.statespace.fractional import MarkovApproxFBM

GRID = torch.tensor([2, 5, 10])


def equation(hurst=0.6, observed=GRID, **settings):
    given = {"dt": 0.1, "num_steps": 10, "num_paths": 2, **settings}
    return FractionalSDE(lambda t, x: -x, 0.5, hurst, observed=observed, **given)


@pytest.mark.parametrize(
    "observed",
    [
        torch.tensor([0.1, 0.5, 0.9]),
        torch.tensor([True, False, True]),
        torch.tensor([11]),
        torch.tensor([[1, 2]]),
        [1.0, float("nan")],
    ],
    ids=["times", "mask", "off", "matrix", "nan"],
)
def test_observations_are_indices_of_the_grid(observed):
    with pytest.raises(ConfigurationError, match="observed.*indices of the grid"):
        equation(observed=observed)


def test_whole_numbers_of_any_kind_are_indices():
    for given in ([2, 5, 10], np.array([2, 5, 10]), GRID.double()):
        assert torch.equal(equation(observed=given).observed, GRID)


@pytest.mark.parametrize("name", ["num_steps", "num_paths", "dim"])
def test_counts_of_the_equation_are_whole(name):
    with pytest.raises(ConfigurationError, match=name):
        equation(**{name: 10.5})


def test_a_prior_of_plain_numbers_draws_nothing_from_the_global_state():
    with pytest.raises(ConfigurationError, match="hurst"):
        equation(dist.Uniform(-1.0, 0.9))
    for low, high in ((0.1, 0.9), (torch.tensor(0.1), torch.tensor(0.9))):
        before = torch.get_rng_state()
        equation(dist.Uniform(low, high))
        assert torch.equal(torch.get_rng_state(), before)


def test_seeds_of_a_simulation_are_those_of_the_rest():
    sde = equation()
    by_numpy = sde.simulate(seed=np.int64(3))[1]
    assert torch.equal(by_numpy, sde.simulate(seed=3)[1])
    generator = torch.Generator().manual_seed(0)
    first, second = (sde.simulate(seed=generator)[1] for _ in range(2))
    assert not torch.equal(first, second)
    assert sde.simulate(seed=None)[1].shape == first.shape


def test_uneven_times_far_from_zero_are_uneven():
    kernel, steps = FractionalNoiseKernel(0.8), torch.tensor([0.0, 1, 3, 4, 6, 7, 9]).double()
    near, far = (kernel((steps + start)[:, None]).to_dense() for start in (0.0, 1.7e9))
    torch.testing.assert_close(far, near)
    even = torch.arange(7).double()[:, None] + 1.7e9
    assert isinstance(kernel(even).evaluate_kernel(), ToeplitzLinearOperator)


@pytest.mark.parametrize("dt", [1e-13, 1.4e-12, 0.01])
def test_the_spread_of_short_steps_is_that_of_the_process(dt):
    process = MarkovApproxFBM(0.5, num_steps=8, dt=dt)
    times = dt * torch.arange(9, dtype=torch.float64)
    path, _ = simulate(
        lambda t, x: torch.zeros_like(x),
        lambda t, x: torch.ones_like(x),
        process,
        times,
        torch.zeros(20_000, 1, dtype=torch.float64),
        generator=torch.Generator().manual_seed(0),
    )
    found, wanted = path[:, -1, 0].std(), process.variance(times[-1:])[0].sqrt()
    torch.testing.assert_close(found, wanted, rtol=0.02, atol=0)


@pytest.mark.parametrize("times", [[3.0, 1.0], [-1.0, 1.0], [0.0, float("nan")]])
def test_paths_are_drawn_at_sorted_times(times):
    with pytest.raises(DataError, match="times"):
        MarkovApproxFBM(0.7).sample(torch.tensor(times), 2)
    with pytest.raises(ShapeError, match="times"):
        MarkovApproxFBM(0.7).sample(torch.ones(2, 2), 2)
