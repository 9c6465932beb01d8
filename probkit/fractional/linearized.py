"""The linearised SDE, and the backward recursion that conditioned and controlled guides share.

Along a reference path the state z = (x, Y, slope) moves as ``z' = F z + c + T e``. With the
likelihood of later observations ``exp(-z'L z / 2 + l'z)``::

    M = I + T'L T,   L_ = L - L T M^-1 T'L,   l_ = l - L T M^-1 T'l
    L <- F'L_ F + observation,   l <- F'(l_ - L_ c) + observation

is Bayes' rule where e is white noise (T its root), and the Riccati equation of the cheapest control
where e is the control times the root of the step (T its effect): the same formulas.
Cost: N d^3 with d = D (K + 2).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jacrev, vmap

from probkit.fractional.sde import FractionalSDE

__all__ = [
    "Conditional",
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


def backward(
    sde: FractionalSDE, F: Tensor, c: Tensor, T: Tensor, y: Float[Tensor, "M D"]
) -> tuple[Float[Tensor, "d d"], Float[Tensor, " d"], Conditional]:
    """``L`` and ``l`` at the start, and what every step needs."""
    d, m = T.shape[-2:]
    seen, pulls = F.new_zeros(sde.num_steps + 1), F.new_zeros(sde.num_steps + 1, d)
    seen.index_add_(0, sde.observed, torch.full_like(y[:, 0], sde.noise**-2))
    pulls[:, : sde.dim].index_add_(0, sde.observed, y / sde.noise**2)
    selector = torch.zeros(d, dtype=F.dtype)
    selector[: sde.dim] = 1.0
    L, pull = torch.diag(selector * seen[-1]), pulls[-1]
    found = []
    for n in range(sde.num_steps - 1, -1, -1):
        LT = L @ T[n]
        chol = torch.linalg.cholesky(torch.eye(m, dtype=F.dtype) + T[n].mT @ LT)
        gain = torch.cholesky_solve(LT.mT, chol)
        shift = torch.cholesky_solve((T[n].mT @ pull)[:, None], chol)[:, 0]
        found.append((gain, shift, *inverse_root(chol)))
        rest, left = L - LT @ gain, pull - LT @ shift
        L = F[n].mT @ rest @ F[n] + torch.diag(selector * seen[n])
        L = (L + L.mT) / 2
        pull = F[n].mT @ (left - rest @ c[n]) + pulls[n]
    return L, pull, Conditional(*[torch.stack(part[::-1]) for part in zip(*found, strict=True)])


def first_reference(sde: FractionalSDE, y: Float[Tensor, "M D"]) -> Float[Tensor, "N+1 D"]:
    """Observations joined by straight lines."""
    grid = torch.arange(sde.num_steps + 1, dtype=y.dtype)
    at = sde.observed.to(y)
    if len(at) == 1:
        return y.expand(len(grid), -1).clone()
    right = torch.searchsorted(at, grid).clamp(1, len(at) - 1)
    left = right - 1
    share = ((grid - at[left]) / (at[right] - at[left])).clamp(0, 1)[:, None]
    return y[left] * (1 - share) + y[right] * share


def linearized(
    sde: FractionalSDE, reference: Float[Tensor, "N+1 D"]
) -> tuple[Tensor, Tensor, Tensor]:
    """F (N, d, d), c (N, d) and T (N, d, m) along a reference path."""
    K, D = len(sde.process.rates), sde.dim
    d, m, h = D * (K + 2), D * K, sde.dt
    times = torch.arange(sde.num_steps, dtype=reference.dtype) * h
    x = reference[:-1]
    b = torch.stack([sde.drift(t, row) for t, row in zip(times, x, strict=True)])
    s = torch.stack([sde.diffusion(t, row) for t, row in zip(times, x, strict=True)])
    J = vmap(jacrev(sde.drift, argnums=1))(times, x)
    decay, root, w = sde.matrices.decay, sde.matrices.root, sde.process.weights
    F, T = x.new_zeros(sde.num_steps, d, d), x.new_zeros(sde.num_steps, d, m)
    F[:, :D, :D] = torch.eye(D, dtype=x.dtype) + h * J
    for i in range(D):
        own = slice(D + i * K, D + (i + 1) * K)
        F[:, i, own] = s[:, i, None] * (w * (decay - 1))
        F[:, i, D + m + i] = s[:, i] * h
        F[:, own, own] = torch.diag(decay)
        F[:, D + m + i, D + m + i] = 1.0
        T[:, own, i * K : (i + 1) * K] = root
        T[:, i, i * K : (i + 1) * K] = s[:, i, None] * (w @ root)
    c = x.new_zeros(sde.num_steps, d)
    c[:, :D] = h * (b - (J @ x[..., None])[..., 0])
    return F, c, T


def flat_state(x: Tensor, y: Tensor, slope: Tensor) -> Tensor:
    """The state (x, Y, slope) as one vector."""
    return torch.cat([x, y.flatten(-2), slope], -1)


def inverse_root(chol: Tensor) -> tuple[Tensor, Tensor]:
    """A root of M^-1, and log det M / 2."""
    units = torch.eye(len(chol), dtype=chol.dtype)
    root = torch.linalg.solve_triangular(chol.mT, units, upper=True)
    return root, chol.diagonal().log().sum()
