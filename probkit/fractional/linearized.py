"""The linearised SDE, and the backward recursion that conditioned and controlled guides share.

Along a reference path the state z = (x, Y, slope) moves as ``z' = F z + c + T e``. With the
likelihood of later observations ``exp(-z'L z / 2 + l'z)``::

    M = I + T'L T,   L_ = L - L T M^-1 T'L,   l_ = l - L T M^-1 T'l
    L <- F'L_ F + observation,   l <- F'(l_ - L_ c) + observation

is Bayes' rule where e is white noise (T its root), and the Riccati equation of the cheapest control
where e is the control times the root of the step (T its effect): the same formulas. Drift and
Jacobian are means over an ensemble of reference paths: with one path this is Taylor's series, with
draws of the posterior the linear function that is closest to the drift in its mean square
(statistical linearisation; Garcia-Fernandez et al., IEEE TSP 63 (2015)).
Cost: N d^3 with d = D (K + 2), in native code where there is a compiler.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vmap

from probkit.errors import ConfigurationError, NotPositiveDefiniteError, message
from probkit.fractional.native_paths import is_native, path_library
from probkit.fractional.observation import GaussianLikelihood, derivative, quadratic_sites
from probkit.fractional.sde import FractionalSDE
from probkit.infer.native.build import pointer

__all__ = [
    "Conditional",
    "Linearized",
    "backward",
    "first_reference",
    "flat_state",
    "inverse_root",
    "linearized",
]


class Conditional(NamedTuple):
    """Law of the white noise of every step given the state: mean ``pull - gain f(z)``, root."""

    gain: Float[Tensor, "N m d"]
    pull: Float[Tensor, "N m"]
    root: Float[Tensor, "N m m"]
    log_det: Float[Tensor, " N"]


class Linearized(NamedTuple):
    """``z' = F z + c + T e`` for every step, and observations as Gaussian functions of z.

    Attributes:
        F, c, T: (N, d, d), (N, d) and (N, d, m).
        seen: second derivatives of minus the log-likelihood, (N + 1, d, d).
        pulls: its linear parts, (N + 1, d).
    """

    F: Float[Tensor, "N d d"]
    c: Float[Tensor, "N d"]
    T: Float[Tensor, "N d m"]
    seen: Float[Tensor, "N+1 d d"]
    pulls: Float[Tensor, "N+1 d"]


def backward(
    linear: Linearized, num_steps: int
) -> tuple[Float[Tensor, "d d"], Float[Tensor, " d"], Conditional]:
    """``L`` and ``l`` at the start, and what every step needs.

    Raises:
        NotPositiveDefiniteError: the linearised law is not finite at a step.
    """
    if is_native(linear.F):
        return _native(linear)
    F, c, T, seen, pulls = linear
    m = T.shape[-1]
    L, pull = seen[-1], pulls[-1]
    found = []
    units = torch.eye(m, dtype=F.dtype, device=F.device)
    for n in range(num_steps - 1, -1, -1):
        LT = L @ T[n]
        chol, failed = torch.linalg.cholesky_ex(units + T[n].mT @ LT)
        if failed:
            raise _not_finite(n)
        gain = torch.cholesky_solve(LT.mT, chol)
        shift = torch.cholesky_solve((T[n].mT @ pull)[:, None], chol)[:, 0]
        found.append((gain, shift, *inverse_root(chol)))
        rest, left = L - LT @ gain, pull - LT @ shift
        L = F[n].mT @ rest @ F[n] + seen[n]
        L = (L + L.mT) / 2
        pull = F[n].mT @ (left - rest @ c[n]) + pulls[n]
    return L, pull, Conditional(*[torch.stack(part[::-1]) for part in zip(*found, strict=True)])


def _native(linear: Linearized) -> tuple[Tensor, Tensor, Conditional]:
    F, c, T, seen, pulls = (part.detach().contiguous() for part in linear)
    (N, d, m), like = T.shape, F
    L, pull = seen[-1].clone(), pulls[-1].clone()
    shapes = ((N, m, d), (N, m), (N, m, m), (N,))
    found = Conditional(*[like.new_empty(shape) for shape in shapes])
    library = path_library()
    assert library is not None
    given = (F, c, T, seen, pulls, L, pull, *found)
    failed = library.condition(N, d, m, *map(pointer, given))
    if failed >= 0:
        raise _not_finite(failed)
    return L, pull, found


def _not_finite(step: int) -> NotPositiveDefiniteError:
    return NotPositiveDefiniteError(
        message(
            "The linearised equation has no finite law",
            where=f"step {step}",
            causes=("a drift that grows without bound along the reference path",),
            remedy="take a smaller dt, or bound the drift",
        )
    )


def first_reference(sde: FractionalSDE, y: Tensor) -> Float[Tensor, "N+1 D"]:
    """Gaussian observations joined by straight lines; the mean of x(0) under other likelihoods."""
    grid = torch.arange(sde.num_steps + 1, dtype=sde.matrices.decay.dtype)
    if not isinstance(sde.likelihood, GaussianLikelihood):
        return torch.full((len(grid), sde.dim), sde.initial[0], dtype=grid.dtype)
    at = sde.observed.to(grid)
    if len(at) == 1:
        return y.expand(len(grid), -1).clone()
    right = torch.searchsorted(at, grid).clamp(1, len(at) - 1)
    left = right - 1
    share = ((grid - at[left]) / (at[right] - at[left])).clamp(0, 1)[:, None]
    return y[left] * (1 - share) + y[right] * share


def linearized(sde: FractionalSDE, reference: Float[Tensor, "S N+1 D"], y: Tensor) -> Linearized:
    """The equation and its observations around an ensemble of reference paths.

    Raises:
        ConfigurationError: the diffusion is not positive somewhere along it.
        ShapeError: drift or diffusion of another shape than the state's.
    """
    K, D = len(sde.matrices.decay), sde.dim
    d, m, h = D * (K + 2), D * K, sde.dt
    mean = reference.mean(0)
    b, s, J = _terms(sde, reference[:, :-1])
    x = mean[:-1]
    decay, root = sde.matrices.decay, sde.matrices.root
    w = sde.noise_scale().weights.expand(D, K)
    F, T = x.new_zeros(sde.num_steps, d, d), x.new_zeros(sde.num_steps, d, m)
    F[:, :D, :D] = torch.eye(D, dtype=x.dtype) + h * J
    for i in range(D):
        own = slice(D + i * K, D + (i + 1) * K)
        F[:, i, own] = s[:, i, None] * (w[i] * (decay - 1))
        F[:, i, D + m + i] = s[:, i] * h
        F[:, own, own] = torch.diag(decay)
        F[:, D + m + i, D + m + i] = 1.0
        T[:, own, i * K : (i + 1) * K] = root
        T[:, i, i * K : (i + 1) * K] = s[:, i, None] * (w[i] @ root)
    c = x.new_zeros(sde.num_steps, d)
    c[:, :D] = h * (b - (J @ x[..., None])[..., 0])
    precision, pull = quadratic_sites(sde.likelihood, mean[sde.observed], y)
    seen, pulls = x.new_zeros(sde.num_steps + 1, d, d), x.new_zeros(sde.num_steps + 1, d)
    seen[:, :D, :D].index_add_(0, sde.observed, precision)
    pulls[:, :D].index_add_(0, sde.observed, pull)
    return Linearized(F, c, T, seen, pulls)


def _terms(sde: FractionalSDE, x: Float[Tensor, "S N D"]) -> tuple[Tensor, Tensor, Tensor]:
    """Means over the ensemble of drift (N, D), diffusion (N, D) and Jacobian (N, D, D)."""
    times, rows = sde.times()[:-1], x.movedim(0, 1)
    with torch.enable_grad():
        rows = rows.detach().requires_grad_()
        b = vmap(sde.drift)(times, rows)
        # paths do not share their drift: one product gives a row of every Jacobian
        parts = [derivative(b[..., i].sum(), rows).mean(1) for i in range(sde.dim)]
    s = vmap(sde.diffusion)(times, rows.detach()).detach()
    if not bool((s > 0).all()):
        wrong = int(torch.nonzero(~(s > 0).flatten(1).all(1))[0])
        raise ConfigurationError(
            message(
                "The diffusion must be positive along the path",
                where=f"diffusion, step {wrong}",
                got=float(s[wrong].min()),
                remedy="end a network with softplus",
            )
        )
    sde.check_terms(times[0], rows[0].detach())
    return b.detach().mean(1), s.mean(1), torch.stack(parts, -2)


def flat_state(x: Tensor, y: Tensor, slope: Tensor) -> Tensor:
    """The state (x, Y, slope) as one vector."""
    return torch.cat([x, y.flatten(-2), slope], -1)


def inverse_root(chol: Tensor) -> tuple[Tensor, Tensor]:
    """A root of M^-1, and log det M / 2."""
    units = torch.eye(len(chol), dtype=chol.dtype)
    root = torch.linalg.solve_triangular(chol.mT, units, upper=True)
    return root, chol.diagonal().log().sum()
