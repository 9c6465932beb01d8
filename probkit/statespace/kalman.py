"""Sequential square-root Kalman filter and Rauch-Tung-Striebel smoother.

All covariances are propagated as roots ``P = S S'`` by QR factorisations, so that they stay
positive semidefinite whatever the spacing of the points (``Q = 0`` included). With a site root
``W W' = H' precision H``::

    QR [ I      0   ] = [ U   .    ]      P_f = S_f S_f',  U'U = I + W' P W
       [ S' W   S'  ]   [ 0   S_f' ]
    QR [ S_f' A'  S_f' ] = [ S_p'  X ]    S_p S_p' = A P_f A' + Q,  gain G = X' S_p^-1
       [ S_Q'     0    ]   [ 0     Y ]    m_s = m_f + G (m_s+ - A m_f),  P_s = Y'Y + G P_s+ G'

``O(T n^3)`` work in ``T`` steps: the reference for the faster forms. Source: P. Park and
T. Kailath, New square-root smoothing algorithms, IEEE Trans. Automatic Control 41 (1996).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from probkit.linalg.small import matvec, semidefinite_roots
from probkit.statespace.score import Adjoint, Filtered, Smoothed, smooth_with
from probkit.statespace.types import Posterior, Sites, Transitions

__all__ = ["SequentialEngine", "smooth_sequential"]


class _Step(NamedTuple):
    mean: Tensor
    root: Tensor
    filtered_mean: Tensor
    filtered_root: Tensor
    half_logdet: Tensor


class SequentialEngine:
    """One point after the other; see the module documentation."""

    differentiable = False  # the derivative of a QR factorisation needs full rank

    def filter(self, transitions: Transitions, H: Tensor, sites: Sites) -> Filtered:
        steps = _forward(transitions, H, sites)
        m, S, mean, S_f, half_logdet = (torch.stack(x, -1) for x in zip(*steps, strict=True))
        m, mean = m.mT, mean.mT
        S, S_f = S.movedim(-1, -3), S_f.movedim(-1, -3)
        linear, v = _linear_terms(H, sites, m)
        value = 0.5 * (linear * m + v * mean).sum((-2, -1)) - half_logdet.sum(-1)
        return Filtered(m, S @ S.mT, mean, S_f @ S_f.mT, value)

    def adjoint(
        self, transitions: Transitions, H: Tensor, sites: Sites, filtered: Filtered
    ) -> Adjoint:
        n = H.shape[-1]
        W = _site_roots(H, sites)
        G = filtered.predicted_covariance @ W
        F = torch.eye(W.shape[-1], dtype=W.dtype, device=W.device) + W.mT @ G
        scaled = torch.linalg.solve(F, W.mT)
        M = torch.eye(n, dtype=W.dtype, device=W.device) - G @ scaled
        _, v = _linear_terms(H, sites, filtered.predicted_mean)
        r, N = torch.zeros_like(v[..., 0, :]), torch.zeros_like(M[..., 0, :, :])
        gradients: list[Tensor] = []
        informations: list[Tensor] = []
        for i in reversed(range(v.shape[-2])):
            if gradients:
                back = transitions.A[..., i + 1, :, :]
                r, N = matvec(back.mT, r), back.mT @ N @ back
            kept = M[..., i, :, :]
            r = matvec(kept.mT, v[..., i, :] + r)
            N = W[..., i, :, :] @ scaled[..., i, :, :] + kept.mT @ N @ kept
            gradients.append(r)
            informations.append(N)
        return Adjoint(torch.stack(gradients[::-1], -2), torch.stack(informations[::-1], -3))

    def smooth(
        self, transitions: Transitions, H: Tensor, sites: Sites, filtered: Filtered
    ) -> tuple[Smoothed, Adjoint | None]:
        steps = _forward(transitions, H, sites)
        noise_roots = semidefinite_roots(transitions.Q)
        mean = steps[-1].filtered_mean
        covariance = steps[-1].filtered_root @ steps[-1].filtered_root.mT
        means, covariances, crosses = [mean], [covariance], []
        for i in reversed(range(len(steps) - 1)):
            A = transitions.A[..., i + 1, :, :]
            root, X, Y = _predict(A, noise_roots[..., i + 1, :, :], steps[i].filtered_root)
            gain = torch.linalg.solve_triangular(root, X.mT, upper=False, left=False)
            crosses.append(covariance @ gain.mT)
            predicted = matvec(A, steps[i].filtered_mean)
            mean = steps[i].filtered_mean + matvec(gain, mean - predicted)
            covariance = Y.mT @ Y + gain @ covariance @ gain.mT
            means.append(mean)
            covariances.append(covariance)
        stacked = torch.stack(means[::-1], -2)
        cross = torch.stack(crosses[::-1], -3) if crosses else transitions.A[..., :0, :, :]
        return Smoothed(stacked, torch.stack(covariances[::-1], -3), cross), None


def smooth_sequential(transitions: Transitions, H: Tensor, sites: Sites) -> Posterior:
    """Marginals of the path given the sites, one point after the other, in square-root form.

    Arguments, results and errors as for :func:`probkit.statespace.scan.smooth_parallel`.

    Example:
        >>> one = torch.ones(2, 1, 1)
        >>> posterior = smooth_sequential(
        ...     Transitions(A=one, Q=one), torch.ones(1, 1), Sites(one, one[..., 0], one[0, 0, 0])
        ... )
        >>> [round(float(v), 3) for v in posterior.mean.flatten()]
        [0.6, 0.8]
    """
    return smooth_with(SequentialEngine(), transitions, H, sites)


def _forward(transitions: Transitions, H: Tensor, sites: Sites) -> list[_Step]:
    W = _site_roots(H, sites)
    noise_roots = semidefinite_roots(transitions.Q)
    r = W.shape[-1]
    m, S = torch.zeros_like(transitions.A[..., 0, :, 0]), noise_roots[..., 0, :, :]
    unit = torch.eye(r, dtype=W.dtype, device=W.device).expand(*S.shape[:-2], r, r)
    top = torch.cat([unit, torch.zeros_like(W[..., 0, :, :].mT)], -1)
    steps = []
    for i in range(W.shape[-3]):
        bottom = torch.cat([S.mT @ W[..., i, :, :], S.mT], -1)
        R = torch.linalg.qr(torch.cat([top, bottom], -2), mode="r").R
        S_f = R[..., r:, r:].mT
        half_logdet = torch.log(torch.diagonal(R, dim1=-2, dim2=-1)[..., :r].abs()).sum(-1)
        at_point = Sites(
            sites.precision[..., i : i + 1, :, :], sites.linear[..., i : i + 1, :], sites.log_scale
        )
        _, v = _linear_terms(H, at_point, m.unsqueeze(-2))
        mean = m + matvec(S_f, matvec(S_f.mT, v.squeeze(-2)))
        steps.append(_Step(m, S, mean, S_f, half_logdet))
        if i + 1 < W.shape[-3]:
            A = transitions.A[..., i + 1, :, :]
            m = matvec(A, mean)
            S, _, _ = _predict(A, noise_roots[..., i + 1, :, :], S_f)
    return steps


def _predict(A: Tensor, noise_root: Tensor, S: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Roots of the predicted covariance and of what remains of ``z_{i-1}`` given ``z_i``."""
    n = A.shape[-1]
    top = torch.cat([S.mT @ A.mT, S.mT], -1)
    bottom = torch.cat([noise_root.mT, torch.zeros_like(noise_root)], -1)
    R = torch.linalg.qr(torch.cat([top, bottom], -2), mode="r").R
    return R[..., :n, :n].mT, R[..., :n, n:], R[..., n:, n:]


def _site_roots(H: Tensor, sites: Sites) -> Tensor:
    return H.unsqueeze(-3).mT @ semidefinite_roots(sites.precision)


def _linear_terms(H: Tensor, sites: Sites, m: Tensor) -> tuple[Tensor, Tensor]:
    """``h = H' linear`` and ``v = h - H' precision H m``."""
    row = H.unsqueeze(-3)
    residual = sites.linear - matvec(sites.precision, matvec(row, m))
    return matvec(row.mT, sites.linear), matvec(row.mT, residual)
