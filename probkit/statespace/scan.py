"""Kalman filter and smoother in parallel over time, in covariance form.

The chain is cut into ``C`` chunks of ``L`` points. A chunk acts on the state at its start like one
long step: it brings information ``(J, h)`` about the start and moves it on by ``(A, b, Q)``; these
five are the elements of the associative scan of Särkkä and García-Fernández (2021, eq. 10-14), here
built by running ``C`` Kalman filters side by side from a known start. The chain of chunks is a
shorter chain of the same kind, solved by recursion, and gives the exact predicted moments at each
chunk start, from which ``C`` ordinary filters run side by side. ``O(T n^3)`` work, ``O(L log_L T)``
vector operations, each over all chunks (``L = 2`` is the odd-even scan).

The update is Joseph's, so covariances stay positive; neither ``Q`` nor a predicted covariance is
ever inverted, so coinciding points (``Q = 0``) are exact. With a site ``J = W W'``, ``h``::

    F = I + W' P W,  K = P W F^-1,  M = I - K W',  v = h - J m
    P_f = M P M' + K K',  m_f = m + P_f v

Smoothing is the disturbance smoother (de Jong 1989): the affine recursion, run in the same chunks,
``r_k = M'(v + A' r_{k+1})``, ``N_k = W F^-1 W' + (A M)' N_{k+1} (A M)``, in which ``r`` and ``-N``
are gradient and Hessian of the log evidence in the predicted mean.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from probkit.errors import NotPositiveDefiniteError, message
from probkit.linalg.small import cholesky, matmul, semidefinite_root
from probkit.statespace.score import Adjoint, Filtered, Smoothed, smooth_with, smoothed_from_adjoint
from probkit.statespace.types import Posterior, Sites, Transitions

__all__ = ["CHUNK", "ParallelEngine", "smooth_parallel"]

CHUNK = 8


class _Chain(NamedTuple):
    """Steps "update, then move on" with time in front and the batch behind."""

    A: Tensor
    Q: Tensor
    b: Tensor
    root: Tensor
    linear: Tensor


class _Update(NamedTuple):
    M: Tensor
    v: Tensor
    scaled: Tensor
    covariance: Tensor
    mean: Tensor
    logdet: Tensor


class ParallelEngine:
    """The three passes over the chain, each in chunks; see the module documentation."""

    differentiable = True

    def __init__(self, chunk: int = CHUNK) -> None:
        self.chunk = chunk

    def filter(self, transitions: Transitions, H: Tensor, sites: Sites) -> Filtered:
        chain = _chain(transitions, H, sites)
        start_mean = torch.zeros_like(chain.b[0])
        start = _time_first(transitions.Q[..., :1, :, :])[0]
        mean, covariance = _predict(chain, start_mean, start, self.chunk)
        update = _update_all(chain, mean, covariance)
        m, h, v = _all(mean), _all(chain.linear), update.v
        quadratic = (h * m + v * update.mean).sum(0)
        length = mean.shape[0]
        batch = transitions.A.shape[:-3]
        terms = (0.5 * (quadratic - update.logdet)).reshape(length, -1).sum(0)
        return Filtered(
            _restore(mean, batch),
            _restore(covariance, batch),
            _restore(_time(update.mean, length), batch),
            _restore(_time(update.covariance, length), batch),
            terms.reshape(batch),
        )

    def adjoint(
        self, transitions: Transitions, H: Tensor, sites: Sites, filtered: Filtered
    ) -> Adjoint:
        chain = _chain(transitions, H, sites)
        length, batch = chain.A.shape[0], transitions.A.shape[:-3]
        mean = _time_first(filtered.predicted_mean.unsqueeze(-1))[:, :, 0]
        update = _update_all(chain, mean, _time_first(filtered.predicted_covariance))
        step = matmul(_all(chain.A), update.M)
        gradient = _apply(update.M.transpose(0, 1), update.v)
        information = matmul(update.scaled.transpose(0, 1), update.scaled)
        r, N = _accumulate(
            _time(step, length), _time(gradient, length), _time(information, length), self.chunk
        )
        return Adjoint(_restore(r, batch), _restore(N, batch))

    def smooth(
        self, transitions: Transitions, H: Tensor, sites: Sites, filtered: Filtered
    ) -> tuple[Smoothed, Adjoint]:
        adjoint = self.adjoint(transitions, H, sites, filtered)
        return smoothed_from_adjoint(transitions, filtered, adjoint), adjoint


def smooth_parallel(
    transitions: Transitions, H: Tensor, sites: Sites, *, chunk: int = CHUNK
) -> Posterior:
    """Marginals of the path given the sites, exact for any spacing of the points.

    Args:
        transitions: the prior, ``A`` and ``Q`` of shape ``(*batch, T, n, n)``; ``Q`` may be zero.
        H: ``f_i = H z_i``, ``(*batch, m, n)``.
        sites: information on ``f_i`` with positive semidefinite precision; zero where missing.
        chunk: number of sequential steps at each level; it changes the speed only.

    Raises:
        NotPositiveDefiniteError: a site with negative precision.

    Example:
        >>> one = torch.ones(2, 1, 1)
        >>> posterior = smooth_parallel(
        ...     Transitions(A=one, Q=one), torch.ones(1, 1), Sites(one, one[..., 0], one[0, 0, 0])
        ... )
        >>> [round(float(v), 3) for v in posterior.mean.flatten()]
        [0.6, 0.8]
    """
    return smooth_with(ParallelEngine(chunk), transitions, H, sites)


def _chain(transitions: Transitions, H: Tensor, sites: Sites) -> _Chain:
    """Shift the transitions so that step ``k`` leads from point ``k`` to ``k + 1``."""
    precision = _time_first(sites.precision)
    root = semidefinite_root(_all(precision))
    _check_sites(precision, root)
    rows = H.unsqueeze(-3).mT.expand(*sites.linear.shape[:-1], *H.mT.shape[-2:])
    observe = _all(_time_first(rows))
    linear = _apply(observe, _all(_time_first(sites.linear.unsqueeze(-1)))[:, 0])
    A = _time_first(pad(transitions.A[..., 1:, :, :], (0, 0, 0, 0, 0, 1)))
    Q = _time_first(pad(transitions.Q[..., 1:, :, :], (0, 0, 0, 0, 0, 1)))
    length = A.shape[0]
    return _Chain(
        A, Q, torch.zeros_like(A[:, 0]), _time(matmul(observe, root), length), _time(linear, length)
    )


def _update(m: Tensor, P: Tensor, W: Tensor, h: Tensor) -> _Update:
    n, r = W.shape[:2]
    G = matmul(P, W)
    F = matmul(W.transpose(0, 1), G)
    F = F + _identity(r, F)
    factor = cholesky(F)
    solved = factor.solve_lower(torch.cat([G.transpose(0, 1), W.transpose(0, 1)], 1))
    K = factor.solve_upper(solved[:, :n]).transpose(0, 1)
    M = _identity(n, F) - matmul(K, W.transpose(0, 1))
    covariance = matmul(matmul(M, P), M.transpose(0, 1)) + matmul(K, K.transpose(0, 1))
    v = h - _apply(W, _apply(W.transpose(0, 1), m))
    mean = m + _apply(covariance, v)
    return _Update(M, v, solved[:, n:], covariance, mean, 2 * factor.log_pivots().sum(0))


def _predict(chain: _Chain, m: Tensor, P: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """Predicted mean and covariance before the update of every step."""
    length = chain.A.shape[0]
    if length <= 2 * chunk:
        return _run(chain, m, P)
    inside = _Chain(*(_split(x, chunk) for x in chain))
    batch = chain.A.shape[-1]
    m, P = _predict(_summarise(inside, batch), m, P, chunk)
    m, P = _run(inside, _all(m), _all(P))
    return _join(m, length, batch), _join(P, length, batch)


def _run(chain: _Chain, m: Tensor, P: Tensor) -> tuple[Tensor, Tensor]:
    means, covariances = [], []
    for A, Q, b, W, h in zip(*chain, strict=True):
        means.append(m)
        covariances.append(P)
        update = _update(m, P, W, h)
        m = _apply(A, update.mean) + b
        P = matmul(matmul(A, update.covariance), A.transpose(0, 1)) + Q
    return torch.stack(means), torch.stack(covariances)


def _summarise(chain: _Chain, batch: int) -> _Chain:
    """One step per chunk: filters from a known start, and what they say about that start."""
    n = chain.A.shape[1]
    m = torch.zeros_like(chain.b[0])
    P = torch.zeros_like(chain.A[0])
    reach = _identity(n, P).expand(n, n, P.shape[-1])
    J, eta = torch.zeros_like(P), torch.zeros_like(m)
    for A, Q, b, W, h in zip(*chain, strict=True):
        update = _update(m, P, W, h)
        seen = matmul(update.scaled, reach)
        J = J + matmul(seen.transpose(0, 1), seen)
        kept = matmul(update.M, reach)
        eta = eta + _apply(kept.transpose(0, 1), update.v)
        m = _apply(A, update.mean) + b
        P = matmul(matmul(A, update.covariance), A.transpose(0, 1)) + Q
        reach = matmul(A, kept)
    parts = (reach, P, m, semidefinite_root(J), eta)
    return _Chain(*(x.unflatten(-1, (-1, batch)).movedim(-2, 0).contiguous() for x in parts))


def _accumulate(step: Tensor, r: Tensor, N: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """Solve ``r_k <- r_k + S_k' r_{k+1}``, ``N_k <- N_k + S_k' N_{k+1} S_k`` from the end."""
    length, batch = step.shape[0], step.shape[-1]
    size = min(chunk, length)
    inside = (_split(step, size), _split(r, size), _split(N, size))
    reach, r, N = _accumulate_inside(*inside)
    if length > size:
        first = [x[0].unflatten(-1, (-1, batch)).movedim(-2, 0) for x in (reach, r, N)]
        r_end, N_end = _accumulate(first[0], first[1], first[2], chunk)
        r_next = _all(pad(r_end[1:], (0, 0) * (r_end.dim() - 1) + (0, 1)))
        N_next = _all(pad(N_end[1:], (0, 0) * (N_end.dim() - 1) + (0, 1)))
        whole, steps = _all(reach), (size, -1)
        r_next = r_next.repeat(1, size)
        N_next = N_next.repeat(1, 1, size)
        back = whole.transpose(0, 1)
        r = r + _apply(back, r_next).unflatten(-1, steps).movedim(-2, 0)
        N = N + matmul(matmul(back, N_next), whole).unflatten(-1, steps).movedim(-2, 0)
    return _join(r, length, batch), _join(N, length, batch)


def _accumulate_inside(step: Tensor, r: Tensor, N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The recursion of each chunk from zero at its end, and the products of its steps."""
    reaches, gradients, informations = [step[-1]], [r[-1]], [N[-1]]
    for S, gradient, information in zip(
        step[:-1].flip(0), r[:-1].flip(0), N[:-1].flip(0), strict=True
    ):
        back = S.transpose(0, 1)
        reaches.append(matmul(reaches[-1], S))
        gradients.append(gradient + _apply(back, gradients[-1]))
        informations.append(information + matmul(matmul(back, informations[-1]), S))
    backwards = (reaches, gradients, informations)
    reach, gradient, information = (torch.stack(x[::-1]) for x in backwards)
    return reach, gradient, information


def _update_all(chain: _Chain, mean: Tensor, covariance: Tensor) -> _Update:
    return _update(_all(mean), _all(covariance), _all(chain.root), _all(chain.linear))


def _check_sites(precision: Tensor, root: Tensor) -> None:
    rebuilt = matmul(root, root.transpose(0, 1))
    given = _all(precision)
    scale = given.abs().amax((0, 1), keepdim=True)
    if bool(((rebuilt - given).abs() > 1e3 * torch.finfo(given.dtype).eps * scale).any()):
        raise NotPositiveDefiniteError(
            message(
                "The covariance form needs sites with positive semidefinite precision",
                where="sites.precision",
                remedy='use smooth(..., method="information"), or damp the site updates',
            )
        )


def _apply(a: Tensor, x: Tensor) -> Tensor:
    return matmul(a, x.unsqueeze(1)).squeeze(1)


def _identity(n: int, example: Tensor) -> Tensor:
    identity = torch.eye(n, dtype=example.dtype, device=example.device)
    return identity.reshape(n, n, *(1 for _ in range(example.dim() - 2)))


def _time_first(x: Tensor) -> Tensor:
    """``(*batch, T, p, q)`` to ``(T, p, q, B)`` with the batch flattened."""
    return x.reshape(-1, *x.shape[-3:]).permute(1, 2, 3, 0).contiguous()


def _restore(x: Tensor, batch: torch.Size) -> Tensor:
    """``(T, ..., B)`` to ``(*batch, T, ...)``."""
    return x.movedim(-1, 0).reshape(*batch, *x.shape[:-1])


def _all(x: Tensor) -> Tensor:
    """``(T, ..., B)`` to ``(..., T * B)``: every point at once."""
    return x.movedim(0, -2).flatten(-2).contiguous()


def _time(x: Tensor, length: int) -> Tensor:
    """The inverse of :func:`_all`."""
    return x.unflatten(-1, (length, -1)).movedim(-2, 0)


def _split(x: Tensor, size: int) -> Tensor:
    """``(T, ..., B)`` to ``(size, ..., C * B)``, padded by steps that do nothing at the end."""
    missing = -x.shape[0] % size
    if missing:
        x = pad(x, (0, 0) * (x.dim() - 1) + (0, missing))
    return x.unflatten(0, (-1, size)).movedim(0, -2).flatten(-2).contiguous()


def _join(x: Tensor, length: int, batch: int) -> Tensor:
    """The inverse of :func:`_split`."""
    return x.unflatten(-1, (-1, batch)).movedim(-2, 0).flatten(0, 1)[:length]
