"""States between and beyond the points of a smoothed chain.

A Markov process at a new point ``t`` depends on the data through its neighbours ``l`` and ``r``
alone. With the prior law of ``z_t`` given both, ``z_t = G_l z_l + G_r z_r + N(0, V)``::

    G_r = Q_l A_r' (A_r Q_l A_r' + Q_r)^-1,    G_l = (I - G_r A_r) A_l
    V   = (I - G_r A_r) Q_l (I - G_r A_r)' + G_r Q_r G_r'

(``l -> t`` has the transition ``A_l, Q_l``, ``t -> r`` the transition ``A_r, Q_r``) and the joint
smoothed law of ``(z_l, z_r)``, their cross-covariance included, mean and covariance follow. Left
of all points there is no ``l``: the same with ``Q_l`` the marginal prior covariance at ``t`` and
``A_l = 0``, which is the reverse-time transition; right of all points ``A_l`` and ``Q_l`` alone.
Cost ``O(n^3)`` a query. The authors of FunBaT invert the forward transition on the left, which
explodes, and merge smoothed neighbours as if they were independent.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import DataError, message
from probkit.linalg.small import matvec
from probkit.statespace.types import Posterior, Transitions

__all__ = ["interpolate"]


def interpolate(
    chain: Callable[[Tensor], Transitions],
    times: Float[Tensor, " T"],
    posterior: Posterior,
    points: Float[Tensor, " Q"],
) -> tuple[Float[Tensor, "*batch Q n"], Float[Tensor, "*batch Q n n"]]:
    """Mean and covariance of the state at any points.

    Args:
        chain: transitions of the process at any sorted times, e.g. ``kernel.transitions``; called
            with a batch of pairs, so it must accept ``(Q, 2)``.
        times: sorted times of the posterior.
        posterior: smoothed moments at ``times``, with batch dimensions in front if need be.
        points: new times, in any order.

    Raises:
        DataError: points that are not finite.

    Example:
        >>> from probkit.statespace.types import Posterior, Transitions
        >>> def wiener(times):
        ...     Q = torch.diff(times, dim=-1, prepend=0 * times[..., :1])[..., None, None]
        ...     return Transitions(torch.ones_like(Q), Q)
        >>> t = torch.tensor([1.0, 2.0])
        >>> pinned = torch.zeros(2, 1, 1)
        >>> posterior = Posterior(t[:, None], pinned, pinned[1:], t[0])
        >>> mean, variance = interpolate(wiener, t, posterior, torch.tensor([0.5, 1.5, 3.0]))
        >>> mean.flatten().tolist(), variance.flatten().tolist()
        ([0.5, 1.5, 2.0], [0.25, 0.25, 1.0])
    """
    if not bool(torch.isfinite(points).all()):
        raise DataError(message("Coordinates must be finite", where="points"))
    last = times.shape[0] - 1
    right = torch.searchsorted(times.contiguous(), points.contiguous())
    has_left, has_right = right > 0, right <= last
    left, right = (right - 1).clamp(min=0), right.clamp(max=last)
    A_l, Q_l = _step(chain, times[left], points, has_left)
    A_r, Q_r = _step(chain, points, times[right], has_right)
    to_left, to_right, noise = _bridge(A_l, Q_l, A_r, Q_r)
    mean = matvec(to_left, posterior.mean[..., left, :])
    mean = mean + matvec(to_right, posterior.mean[..., right, :])
    covariance = (
        noise
        + to_left @ posterior.covariance[..., left, :, :] @ to_left.mT
        + to_right @ posterior.covariance[..., right, :, :] @ to_right.mT
    )
    if last > 0:
        # Where a neighbour is missing its gain is zero, and the pair that is read does not matter.
        cross = posterior.cross[..., left.clamp(max=last - 1), :, :]
        mixed = to_right @ cross @ to_left.mT
        covariance = covariance + mixed + mixed.mT
    return mean, 0.5 * (covariance + covariance.mT)


def _step(
    chain: Callable[[Tensor], Transitions], start: Tensor, end: Tensor, exists: Tensor
) -> Transitions:
    """Transition from ``start`` to ``end``; where there is none, ``A = 0`` and the prior there."""
    A, Q = chain(torch.stack([torch.minimum(start, end), end], -1))
    alone = chain(end.unsqueeze(-1)).Q[..., 0, :, :]
    flag = exists[:, None, None]
    return Transitions(
        torch.where(flag, A[..., 1, :, :], 0.0), torch.where(flag, Q[..., 1, :, :], alone)
    )


def _bridge(A_l: Tensor, Q_l: Tensor, A_r: Tensor, Q_r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gains on the left and on the right neighbour, and the covariance given both."""
    innovation = A_r @ Q_l @ A_r.mT + Q_r
    to_right = _solve_scaled(innovation, A_r @ Q_l).mT
    identity = torch.eye(A_l.shape[-1], dtype=Q_l.dtype, device=Q_l.device)
    keep = identity - to_right @ A_r
    noise = keep @ Q_l @ keep.mT + to_right @ Q_r @ to_right.mT
    return keep @ A_l, to_right, noise


def _solve_scaled(matrix: Tensor, rhs: Tensor) -> Tensor:
    """``matrix^-1 rhs`` after scaling to unit diagonal: derivatives differ by powers of the gap.

    A process without noise (coinciding points, a cosine) has a singular matrix whose range
    contains ``rhs``; there the pseudo-inverse is the limit.
    """
    variance = matrix.diagonal(dim1=-2, dim2=-1)
    scale = torch.where(variance > 0, variance, 1.0).rsqrt().unsqueeze(-1)
    scaled = matrix * scale * scale.mT
    factor, info = torch.linalg.cholesky_ex(scaled)
    if bool((info > 0).any()):
        inverse = torch.linalg.pinv(scaled, hermitian=True)
        return scale * (inverse @ (scale * rhs))
    return scale * torch.cholesky_solve(scale * rhs, factor)
