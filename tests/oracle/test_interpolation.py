"""States between and beyond the points against a dense Gaussian process."""

import pytest
import torch
from dense_gp import Matern, dense_posterior, random_sites

from probkit.errors import DataError
from probkit.random import as_generator
from probkit.statespace.interpolation import interpolate
from probkit.statespace.sites import observe
from probkit.statespace.smoother import smooth
from probkit.statespace.stacking import block_diagonal, stack
from probkit.statespace.types import Posterior, Sites, Transitions


def dense_prediction(kernel, times, sites, points):
    """State mean and covariance at points, with empty sites there."""
    every = torch.cat([times, points])
    prior = kernel.covariance(every, every)
    tiny = 1e-300 * torch.ones(len(points), 1, 1, dtype=torch.float64)
    padded = Sites(
        torch.cat([sites.precision, tiny]),
        torch.cat([sites.linear, 0 * tiny[..., 0]]),
        sites.log_scale,
    )
    mean, covariance, _ = dense_posterior(prior, kernel.H, padded)
    index = torch.arange(len(times), len(every))
    return mean[index], covariance[index, :, index, :]


@pytest.mark.parametrize("length", [1, 40])
@pytest.mark.parametrize("nu", [0.5, 1.5, 2.5])
def test_between_and_beyond_the_points(nu, length):
    kernel = Matern(nu, 0.3)
    times = torch.rand(length, generator=as_generator(0), dtype=torch.float64).sort().values
    sites = random_sites(length, 1, as_generator(1), scale=10.0)
    points = torch.cat(
        [
            torch.rand(20, generator=as_generator(2), dtype=torch.float64),
            torch.stack([times[0] - 0.3, times[-1] + 0.3, times[0], times[-1]]),
        ]
    )
    posterior = smooth(kernel.transitions(times), kernel.H, sites)
    mean, covariance = interpolate(kernel.transitions, times, posterior, points)
    expected_mean, expected = dense_prediction(kernel, times, sites, points)
    size = kernel.P.diagonal().sqrt()
    torch.testing.assert_close(mean / size, expected_mean / size, rtol=0.0, atol=1e-8)
    scale = size[:, None] * size
    torch.testing.assert_close(covariance / scale, expected / scale, rtol=0.0, atol=1e-8)
    assert bool((covariance.diagonal(dim1=-2, dim2=-1) > 0).all())


def test_stacked_components_and_batches():
    kernels = [Matern(0.5, 0.3), Matern(1.5, 0.5)]
    times = torch.rand(10, generator=as_generator(0), dtype=torch.float64).sort().values
    points = torch.tensor([-0.2, 0.45, 1.4], dtype=torch.float64)
    sites = random_sites(10, 1, as_generator(1))

    def chain(t):
        return stack([kernel.transitions(t) for kernel in kernels])

    alone = [
        interpolate(k.transitions, times, smooth(k.transitions(times), k.H, sites), points)
        for k in kernels
    ]
    both = Sites(
        block_diagonal([sites.precision] * 2),
        torch.cat([sites.linear] * 2, -1),
        sites.log_scale,
    )
    H = block_diagonal([kernel.H for kernel in kernels])
    posterior = smooth(chain(times), H, both, "parallel")
    batched = Posterior(*(torch.stack([x, x]) for x in posterior))
    mean, covariance = interpolate(chain, times, batched, points)
    assert mean.shape == (2, 3, 3)
    torch.testing.assert_close(mean[1], torch.cat([m for m, _ in alone], -1))
    torch.testing.assert_close(covariance[0], block_diagonal([c for _, c in alone]))


def test_a_process_without_noise():
    def chain(t):
        step = torch.diff(t, dim=-1, prepend=t[..., :1])
        cos, sin = torch.cos(step), torch.sin(step)
        A = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
        Q = torch.zeros_like(A)
        Q[..., 0, :, :] = torch.eye(2, dtype=t.dtype)
        return Transitions(A, Q)

    times = torch.linspace(0, 2, 9, dtype=torch.float64)
    H = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    posterior = smooth(chain(times), H, observe(torch.cos(times), 1e-4))
    points = torch.tensor([-1.0, 0.3, 0.5, 3.0], dtype=torch.float64)
    mean, covariance = interpolate(chain, times, posterior, points)
    torch.testing.assert_close(mean[:, 0], torch.cos(points), rtol=0.0, atol=1e-4)
    together = smooth(
        chain(torch.cat([points[:1], times])),
        H,
        observe(torch.cat([times.new_tensor([torch.nan]), torch.cos(times)]), 1e-4),
    )
    torch.testing.assert_close(covariance[0], together.covariance[0], rtol=0.0, atol=1e-10)


def test_points_must_be_finite():
    kernel, times = Matern(0.5), torch.linspace(0, 1, 3, dtype=torch.float64)
    sites = observe(times, 1.0)
    posterior = smooth(kernel.transitions(times), kernel.H, sites)
    with pytest.raises(DataError, match="points"):
        interpolate(kernel.transitions, times, posterior, times / 0.0)
