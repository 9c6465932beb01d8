"""Joint draws of a Markov path from its posterior given sites.

In information form a draw is ``mean + L'^-1 noise`` by the back substitution of the factorisation
that gave the mean: ``O(T n^3)`` once and ``O(T n^2)`` a draw. Where the information form is not
accurate (near-duplicate points) Matheron's rule is used: a prior path ``z`` and pseudo-observations
``precision f(z) + precision^1/2 noise`` of it turn into a posterior path by smoothing the
difference of the sites.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.linalg.cyclic_reduction import factorize
from probkit.linalg.small import from_trailing, semidefinite_root, to_trailing
from probkit.statespace.information import posterior_precision, prior_precision
from probkit.statespace.smoother import choose_method, smooth
from probkit.statespace.types import Sites, Transitions

__all__ = ["sample_posterior", "sample_prior"]


def sample_prior(
    transitions: Transitions, num_samples: int, generator: torch.Generator
) -> Float[Tensor, "S T n"]:
    """Draws of the path from its prior.

    Example:
        >>> one = torch.ones(4, 1, 1)
        >>> sample_prior(Transitions(one, one), 3, torch.Generator()).shape
        torch.Size([3, 4, 1])
    """
    A, Q = transitions
    root = from_trailing(semidefinite_root(to_trailing(Q)))
    steps = (root @ _noise(num_samples, Q, generator).unsqueeze(-1)).squeeze(-1)
    path = [steps[:, 0]]
    for i in range(1, steps.shape[1]):
        path.append(path[-1] @ A[i].mT + steps[:, i])
    return torch.stack(path, 1)


def sample_posterior(
    transitions: Transitions,
    H: Float[Tensor, "m n"],
    sites: Sites,
    num_samples: int,
    generator: torch.Generator,
) -> Float[Tensor, "S T n"]:
    """Joint draws of the path given sites.

    Args:
        transitions: the prior, ``A`` and ``Q`` of shape ``(T, n, n)``.
        H: ``f_i = H z_i``.
        sites: information on ``f_i``; zero where missing.
        num_samples: number of draws ``S``.
        generator: all randomness.

    Example:
        >>> one = torch.ones(4, 1, 1)
        >>> sites = Sites(one, one[..., 0], one[0, 0, 0])
        >>> prior = Transitions(one, one)
        >>> sample_posterior(prior, torch.ones(1, 1), sites, 2, torch.Generator()).shape
        torch.Size([2, 4, 1])
    """
    if choose_method(transitions).method == "information":
        prior = prior_precision(transitions)
        diagonal, linear = posterior_precision(prior, H, sites)
        factor = factorize(diagonal, prior.lower)
        noise = _noise(num_samples, diagonal, generator)
        draws = factor.sample(noise.movedim(0, -1)).movedim(-1, 0)
        return factor.solve(linear) + draws
    paths = sample_prior(transitions, num_samples, generator)
    root = from_trailing(semidefinite_root(to_trailing(sites.precision)))
    f = paths @ H.mT
    noise = _noise(num_samples, sites.precision, generator)
    pseudo = (sites.precision @ f.unsqueeze(-1) + root @ noise.unsqueeze(-1)).squeeze(-1)
    corrections = [
        smooth(transitions, H, Sites(sites.precision, sites.linear - p, sites.log_scale)).mean
        for p in pseudo
    ]
    return paths + torch.stack(corrections)


def _noise(num_samples: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers (S, T, n) for blocks (T, n, n)."""
    noise = torch.randn(
        num_samples, *like.shape[:-1], generator=generator, dtype=like.dtype,
        device=generator.device,
    )  # fmt: skip
    return noise.to(like.device)
