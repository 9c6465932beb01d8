"""The ELBO of a small functional Tucker model by brute force, entry by entry and dense.

    ELBO = E log p(y | f, tau) - KL(tau) - KL(W, b) - sum_k KL(U^k)

Paths are compared with the dense prior of a Matern-1/2 GP; the joint posterior of a path is rebuilt
from its neighbour covariances by the Markov property. Nothing of the sweeps' algebra is used.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Gamma, MultivariateNormal, kl_divergence

from probkit.tensor.variational import TuckerVariational

__all__ = ["dense_elbo"]

State = dict[str, Tensor]


def dense_elbo(model: TuckerVariational, state: State) -> float:
    """ELBO at ``state`` for Gaussian noise and Matern-1/2 factors."""
    modes = range(model.entries.num_modes)
    shape, rate = state["noise.shape"], state["noise.rate"]
    noise = Gamma(shape, rate)
    prior_noise = Gamma(torch.full_like(shape, 1e-3), torch.full_like(shape, 1e-3))
    squares = sum(_expected_square(model, state, n) for n in range(model.entries.num_entries))
    mean_log = torch.digamma(shape) - torch.log(rate)
    likelihood = model.entries.num_entries / 2 * (mean_log - math.log(2 * math.pi))
    likelihood = likelihood - 0.5 * shape / rate * squares
    precision = torch.cat([model.weight_precision(state), shape.new_tensor([1e-2])])
    core = MultivariateNormal(state["core.mean"], state["core.covariance"])
    prior_core = MultivariateNormal(torch.zeros_like(precision), precision_matrix=precision.diag())
    divergence = kl_divergence(noise, prior_noise) + kl_divergence(core, prior_core)
    for k in modes:
        divergence = divergence + _path_divergence(model, state, k)
    return float(likelihood - divergence)


def _expected_square(model: TuckerVariational, state: State, n: int) -> Tensor:
    """E (y_n - f_n - b)^2 from the factors' moments at one entry."""
    mean = second = None
    for k in range(model.entries.num_modes):
        i = model.entries.index[k][n]
        row, covariance = (value[i] for value in model.mode_moments(state, k))
        square = covariance + torch.outer(row, row)
        if mean is None or second is None:
            mean, second = row, square
        elif model.structure == "cp":
            mean, second = mean * row, second * square
        else:
            mean, second = torch.kron(mean, row), torch.kron(second, square)
    assert mean is not None and second is not None
    one = mean.new_ones(1)
    mean = torch.cat([mean, one])
    padded = torch.zeros(len(mean), len(mean), dtype=mean.dtype)
    padded[:-1, :-1], padded[-1, :], padded[:, -1] = second, mean, mean
    core = state["core.mean"]
    y = model.entries.targets[n]
    moment = state["core.covariance"] + torch.outer(core, core)
    return y.square() - 2 * y * (mean @ core) + (padded * moment).sum()


def _path_divergence(model: TuckerVariational, state: State, k: int) -> Tensor:
    means, blocks = state[f"mode{k}.mean"], state[f"mode{k}.covariance"]
    cross, grid = state[f"mode{k}.cross"], model.entries.grids[k]
    num_points, rank = means.shape
    joint = torch.zeros(num_points, rank, num_points, rank, dtype=means.dtype)
    for j in range(num_points):
        block = blocks[j]
        joint[j, :, j] = block
        for i in range(j, num_points - 1):
            block = cross[i] @ torch.linalg.solve(blocks[i], block)
            joint[i + 1, :, j], joint[j, :, i + 1] = block, block.T
    size = num_points * rank
    with torch.no_grad():
        lengthscale = model.mode(state, k).kernel.lengthscale.reshape(rank)
    distance = (grid[:, None] - grid[None, :]).abs()
    prior = torch.zeros_like(joint)
    for r in range(rank):
        prior[:, r, :, r] = torch.exp(-distance / lengthscale[r])
    return kl_divergence(
        MultivariateNormal(means.reshape(size), joint.reshape(size, size)),
        MultivariateNormal(torch.zeros(size, dtype=means.dtype), prior.reshape(size, size)),
    )
