"""Smoothing in information form: the precision of a Markov process is block tridiagonal.

The prior of ``z_0 ~ N(0, Q_0)``, ``z_i = A_i z_{i-1} + N(0, Q_i)`` has the precision blocks::

    J_ii     = Q_i^-1 + A_{i+1}' Q_{i+1}^-1 A_{i+1}
    J_{i+1,i} = - Q_{i+1}^-1 A_{i+1}

to which a site adds ``H' precision H``. Everything else is cyclic reduction: ``O(T n^3)`` work,
``log2 T`` steps. Fastest of the forms, and the one whose outputs are all differentiable; it loses
digits when neighbouring points are so close that ``Q_i`` is nearly singular, where
:mod:`probkit.statespace.scan` or :mod:`probkit.statespace.kalman` serve.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from probkit.errors import NotPositiveDefiniteError, message
from probkit.linalg.banded import chain_factor
from probkit.linalg.cyclic_reduction import factorize
from probkit.linalg.log_normalizer import log_normalizer
from probkit.linalg.small import cholesky, from_trailing, to_trailing
from probkit.statespace.types import Posterior, Sites, Transitions

__all__ = [
    "PriorPrecision",
    "log_normalizer_information",
    "posterior_precision",
    "prior_precision",
    "smooth_information",
    "smooth_with_precision",
]


class PriorPrecision(NamedTuple):
    """Blocks of the prior precision and its log-determinant."""

    diagonal: Float[Tensor, "*batch T n n"]
    lower: Float[Tensor, "*batch T-1 n n"]
    logdet: Float[Tensor, "*batch"]


def prior_precision(transitions: Transitions) -> PriorPrecision:
    """Block-tridiagonal precision of the prior path.

    Raises:
        NotPositiveDefiniteError: some ``Q_i`` is not positive definite.

    Example:
        >>> one = torch.ones(3, 1, 1)
        >>> prior_precision(Transitions(A=one, Q=one)).diagonal.flatten().tolist()
        [2.0, 2.0, 1.0]
    """
    n = transitions.A.shape[-1]
    # Only the lower triangle is read: the mean of both makes the gradient symmetric.
    noise = cholesky(to_trailing(0.5 * (transitions.Q + transitions.Q.mT)))
    log_pivots = noise.log_pivots()
    if not bool(torch.isfinite(log_pivots).all()):
        _raise_singular_noise(log_pivots)
    identity = torch.eye(n, dtype=transitions.Q.dtype, device=transitions.Q.device)
    batch = log_pivots.shape[1:]
    identity = identity.reshape(n, n, *(1 for _ in batch)).expand(n, n, *batch)
    root = from_trailing(noise.solve_lower(identity))
    scaled = from_trailing(noise.solve_lower(to_trailing(transitions.A)))[..., 1:, :, :]
    diagonal = root.mT @ root + pad(scaled.mT @ scaled, (0, 0, 0, 0, 0, 1))
    lower = -root[..., 1:, :, :].mT @ scaled
    return PriorPrecision(diagonal, lower, -2 * log_pivots.sum(0).sum(-1))


def posterior_precision(
    prior: PriorPrecision, H: Float[Tensor, "*batch m n"], sites: Sites
) -> tuple[Float[Tensor, "*batch T n n"], Float[Tensor, "*batch T n"]]:
    """Diagonal precision blocks and linear term of the path given the sites."""
    row = H.unsqueeze(-3)
    diagonal = prior.diagonal + row.mT @ sites.precision @ row
    return 0.5 * (diagonal + diagonal.mT), (row.mT @ sites.linear.unsqueeze(-1)).squeeze(-1)


def smooth_information(
    transitions: Transitions, H: Float[Tensor, "*batch m n"], sites: Sites
) -> Posterior:
    """Marginals of the path given the sites, by cyclic reduction.

    Args:
        transitions: the prior, ``A`` and ``Q`` of shape ``(*batch, T, n, n)``.
        H: ``f_i = H z_i``.
        sites: Gaussian information on ``f_i``; zero where missing.

    Raises:
        NotPositiveDefiniteError: points too close together, or an improper site.

    Example:
        >>> one = torch.ones(2, 1, 1)
        >>> posterior = smooth_information(
        ...     Transitions(A=one, Q=one), torch.ones(1, 1), Sites(one, one[..., 0], one[0, 0, 0])
        ... )
        >>> [round(float(v), 3) for v in posterior.mean.flatten()]
        [0.6, 0.8]
    """
    return smooth_with_precision(prior_precision(transitions), H, sites)


def smooth_with_precision(
    prior: PriorPrecision, H: Float[Tensor, "*batch m n"], sites: Sites
) -> Posterior:
    """:func:`smooth_information` where the prior's precision is known already."""
    diagonal, linear = posterior_precision(prior, H, sites)
    diagonal, lower, linear = _expand_together(diagonal, prior.lower, linear)
    inputs = (diagonal, lower, linear)
    differentiable = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    factor = factorize(diagonal, lower) if differentiable else chain_factor(diagonal, lower)
    mean, covariance, cross = factor.solve_and_selected_inverse(linear)
    quadratic = (linear * mean).sum((-2, -1))
    normalizer = sites.log_scale + 0.5 * (quadratic + prior.logdet - factor.logdet())
    return Posterior(mean, covariance, cross, normalizer)


def log_normalizer_information(
    transitions: Transitions, H: Float[Tensor, "*batch m n"], sites: Sites
) -> Float[Tensor, "*batch"]:
    """``log E_prior[prod_i site_i(f_i)]`` alone, with the closed-form gradient."""
    prior = prior_precision(transitions)
    diagonal, linear = posterior_precision(prior, H, sites)
    evidence = log_normalizer(*_expand_together(diagonal, prior.lower, linear))
    return sites.log_scale + 0.5 * prior.logdet + evidence


def _expand_together(
    diagonal: Tensor, lower: Tensor, linear: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    batch = torch.broadcast_shapes(diagonal.shape[:-3], linear.shape[:-2])
    return (
        diagonal.expand(*batch, *diagonal.shape[-3:]),
        lower.expand(*batch, *lower.shape[-3:]),
        linear.expand(*batch, *linear.shape[-2:]),
    )


def _raise_singular_noise(log_pivots: Tensor) -> None:
    bad = (~torch.isfinite(log_pivots)).any(0)
    index = int(bad.reshape(-1, bad.shape[-1]).any(0).nonzero()[0])
    raise NotPositiveDefiniteError(
        message(
            "The process noise between two points is singular, so the precision does not exist",
            where=f"Q[{index}] of {bad.shape[-1]}",
            causes=("points that coincide or nearly do", "a deterministic component"),
            remedy='use the covariance form, smooth(..., method="parallel"), or merge the points',
        )
    )
