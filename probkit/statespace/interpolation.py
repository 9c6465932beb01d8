"""States between and beyond the points of a smoothed chain.

A Markov process at a new point ``t`` depends on the data through its neighbours ``l`` and ``r``
alone. With the prior law of ``z_t`` given both, ``z_t = G_l z_l + G_r z_r + N(0, V)``::

    P_- = A_l P A_l' + Q_l                     (given z_l only: mean A_l z_l, covariance Q_l)
    G_r = Q_l A_r' (A_r Q_l A_r' + Q_r)^-1,    G_l = (I - G_r A_r) A_l,    V = (I - G_r A_r) Q_l

and the joint smoothed law of ``(z_l, z_r)`` (their cross-covariance included), mean and covariance
follow. Left of all points there is no ``l``: the same with ``Q_l`` the marginal prior covariance at
``t`` and ``A_l = 0``, which is the reverse-time transition; right of all points ``A_l`` and ``Q_l``
alone. Cost ``O(n^3)`` a query. The authors of FunBaT invert the forward transition on the left,
which explodes, and merge smoothed neighbours as if they were independent.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import DataError, message
from probkit.statespace.types import Posterior, Transitions

__all__ = ["interpolate"]


def interpolate(
    chain: Callable[[Tensor], Transitions],
    times: Float[Tensor, " T"],
    posterior: Posterior,
    points: Float[Tensor, " Q"],
) -> tuple[Float[Tensor, "Q n"], Float[Tensor, "Q n n"]]:
    """Mean and covariance of the state at points that are not in ``times``.

    Args:
        chain: transitions of the process at any sorted times, e.g. ``kernel.transitions``; called
            with a batch of triples, so it must accept ``(*batch, T)``.
        times: sorted times of the posterior.
        posterior: smoothed moments at ``times``.
        points: new times, in any order.

    Raises:
        DataError: points that are not finite.

    Example:
        >>> from probkit.kernels import MaternKernel
        >>> from probkit.statespace.smoother import smooth
        >>> from probkit.statespace.types import Sites
        >>> kernel, t = MaternKernel(0.5), torch.arange(2.0, dtype=torch.float64)
        >>> one = torch.ones(2, 1, 1, dtype=torch.float64)
        >>> prior = kernel.transitions(t)
        >>> posterior = smooth(
        ...     prior, kernel.output_map(), Sites(0 * one, 0 * one[..., 0], 0 * t[0])
        ... )
        >>> mean, variance = interpolate(
        ...     kernel.transitions, t, posterior, torch.tensor([0.5]).double()
        ... )
        >>> round(float(variance), 8)
        1.0
    """
    if not bool(torch.isfinite(points).all()):
        raise DataError(message("Coordinates must be finite", where="points"))
    right = torch.searchsorted(times, points)
    has_left, has_right = right > 0, right < times.shape[0]
    left = (right - 1).clamp(min=0)
    right = right.clamp(max=times.shape[0] - 1)
    before, after = _pair(chain, times[left], points, has_left), _pair(
        chain, points, times[right], has_right
    )  # fmt: skip
    A_l, Q_l, A_r, Q_r = before.A, before.Q, after.A, after.Q
    # without a right neighbour there is nothing to condition on
    A_r = torch.where(has_right[:, None, None], A_r, torch.zeros_like(A_r))
    innovation = A_r @ Q_l @ A_r.mT + Q_r
    gain = torch.linalg.solve(innovation, A_r @ Q_l).mT
    keep = torch.eye(A_l.shape[-1]).to(Q_l) - gain @ A_r
    G_l = keep @ A_l
    noise = keep @ Q_l @ keep.mT + gain @ Q_r @ gain.mT
    mean_l, mean_r = posterior.mean[left], posterior.mean[right]
    mean = (G_l @ mean_l[..., None] + gain @ mean_r[..., None])[..., 0]
    cross = posterior.cross[left.clamp(max=max(times.shape[0] - 2, 0))] if len(times) > 1 else None
    covariance = noise + G_l @ posterior.covariance[left] @ G_l.mT
    covariance = covariance + gain @ posterior.covariance[right] @ gain.mT
    if cross is not None:
        # cross[i] = Cov(z_{i+1}, z_i); G_l or the gain is zero where a neighbour is missing
        mixed = gain @ cross @ G_l.mT
        covariance = covariance + mixed + mixed.mT
    return mean, 0.5 * (covariance + covariance.mT)


def _pair(
    chain: Callable[[Tensor], Transitions], start: Tensor, end: Tensor, exists: Tensor
) -> Transitions:
    """Transition from ``start`` to ``end``; where it does not exist, the marginal at ``end``."""
    times = torch.stack([torch.minimum(start, end), end], -1)
    both = chain(times)  # (..., Q, 2, n, n)
    A, Q = both.A[..., 1, :, :], both.Q[..., 1, :, :]
    alone = chain(end[:, None]).Q[..., 0, :, :]
    flag = exists[:, None, None]
    return Transitions(torch.where(flag, A, torch.zeros_like(A)), torch.where(flag, Q, alone))
