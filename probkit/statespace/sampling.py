"""Exact sample paths of a Markov process, prior and posterior.

The prior is drawn forward, ``z_i = A_i z_{i-1} + N(0, Q_i)``. In information form a posterior draw
is ``mean + N(0, J^-1)`` by the back substitution of the factorisation that gave the mean. Where
that form is not accurate (near-duplicate points) a prior path ``z~`` is corrected (J. Durbin and
S. J. Koopman, Biometrika 89 (2002) 603): with pseudo-observations
``h~ = precision H z~ + N(0, precision)`` of the sites, ``z~ + E[z | linear - h~]`` has the law of
``z`` given the sites, with no factor of a posterior covariance. ``O(T n^3)``.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.linalg.cyclic_reduction import factorize
from probkit.linalg.small import matvec, semidefinite_roots
from probkit.random import Seed, as_generator
from probkit.statespace.information import posterior_precision, prior_precision
from probkit.statespace.score import expand_together
from probkit.statespace.smoother import Method, resolve_method, smooth
from probkit.statespace.types import Sites, Transitions

__all__ = ["sample_posterior", "sample_prior"]


def sample_prior(
    transitions: Transitions, num_samples: int, seed: Seed = None
) -> Float[Tensor, "num_samples *batch T n"]:
    """Independent prior paths.

    Args:
        transitions: ``A`` and ``Q`` of shape ``(*batch, T, n, n)``.
        num_samples: number of paths.
        seed: an integer or the generator of all randomness.

    Example:
        >>> one = torch.ones(5, 1, 1)
        >>> sample_prior(Transitions(A=one, Q=one), 3, seed=0).shape
        torch.Size([3, 5, 1])
    """
    A, Q = transitions
    steps = matvec(semidefinite_roots(Q), _noise((num_samples, *A.shape[:-1]), A, seed))
    path = [steps[..., 0, :]]
    for i in range(1, A.shape[-3]):
        path.append(matvec(A[..., i, :, :], path[-1]) + steps[..., i, :])
    return torch.stack(path, -2)


def sample_posterior(
    transitions: Transitions,
    H: Float[Tensor, "*batch m n"],
    sites: Sites,
    num_samples: int,
    seed: Seed = None,
    method: Method = "auto",
) -> Float[Tensor, "num_samples *batch T n"]:
    """Independent paths given the sites.

    Args:
        transitions: the prior, ``A`` and ``Q`` of shape ``(*batch, T, n, n)``.
        H: ``f_i = H z_i``.
        sites: information on ``f_i``; zero where missing.
        num_samples: number of paths.
        seed: an integer or the generator of all randomness.
        method: as for :func:`probkit.statespace.smoother.smooth`.

    Raises:
        NotPositiveDefiniteError: a site that is not positive semidefinite.

    Example:
        >>> one = torch.ones(5, 1, 1)
        >>> sites = Sites(one, one[..., 0], one[0, 0, 0])
        >>> sample_posterior(Transitions(A=one, Q=one), one[0], sites, 3, seed=0).shape
        torch.Size([3, 5, 1])
    """
    generator = as_generator(seed)
    chosen = resolve_method(method, transitions)
    transitions, H, sites = expand_together(transitions, H, sites)
    shape = (num_samples, *sites.linear.shape[:-1])
    if chosen == "information":
        prior = prior_precision(transitions)
        diagonal, linear = posterior_precision(prior, H, sites)
        factor = factorize(diagonal, prior.lower)
        noise = _noise((*shape, H.shape[-1]), diagonal, generator)
        return factor.solve(linear) + factor.sample(noise.movedim(0, -1)).movedim(-1, 0)
    paths = sample_prior(transitions, num_samples, generator)
    noise = _noise((*shape, H.shape[-2]), H, generator)
    outputs = matvec(H.unsqueeze(-3), paths)
    pseudo = matvec(sites.precision, outputs) + matvec(semidefinite_roots(sites.precision), noise)
    residual = Sites(sites.precision, sites.linear - pseudo, sites.log_scale)
    return paths + smooth(transitions, H, residual, chosen).mean


def _noise(shape: tuple[int, ...], like: Tensor, seed: Seed) -> Tensor:
    """Standard normal numbers drawn where the generator lives, then moved."""
    generator = as_generator(seed)
    drawn = torch.randn(shape, generator=generator, dtype=like.dtype, device=generator.device)
    return drawn.to(like.device)
