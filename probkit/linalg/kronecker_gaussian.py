"""Gaussian conditioning with a Kronecker dictionary and a Kronecker prior variance, matrix-free.

    y = (A_1 x ... x A_I) x + e,  x ~ N(0, diag(g_1 x ... x g_I)),  e ~ N(0, v I)

(circular complex normal if A or y is complex). With G_k = A_k diag(g_k) A_k^H = U_k diag(p_k)
U_k^H, B_k = U_k^H A_k, P = p_1 o ... o p_I + v and mode products everywhere,

    Z = Y x_k U_k^H,  W = Z / P,  Q = W x_k B_k^H (= A^H C^-1 y),   mean = g o Q
    S = (1/P) x_k (abs(B_k)^2)' (= diag A^H C^-1 A),               variance = g o (1 - g o S)
    logdet C = sum log P,  y^H C^-1 y = sum abs(Z)^2 / P,  C = A diag(g) A^H + v I
    log p(y) = -c (L logdet C + y^H C^-1 y + L M log(pi / c)),     c = 1/2 real, 1 complex
    d log p / d g_k,i = c sum_others prod g (sum_l abs(Q)^2 - L S)
    d log p / d v     = c (sum abs(W)^2 - L sum 1/P)

Cost: sum_k (m_k^3 + m_k^2 n_k) and the mode products; memory: a few numbers an atom. The mean is
g o Q and not A^H (y - ...) / v, which loses all digits for small v.
Source: He & Joseph, IEEE TSP 72 (2024), arXiv 2307.14719, who form the dense matrices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from probkit.errors import NumericalError, message
from probkit.linalg.mode_products import contract_all_but, mode_products, outer

__all__ = ["Conditioned", "condition", "kronecker_log_evidence", "posterior_variance"]


class Conditioned(NamedTuple):
    """What one pass leaves; B stands for batch dimensions, L for the columns of y."""

    scales: list[Tensor]
    """g_k, (*B, n_k)"""
    noise: Tensor
    """v, (*B)"""
    correlation: Tensor
    """Q, (*B, L, n_1, ..., n_I)"""
    sensitivity: Tensor
    """S, (*B, n_1, ..., n_I)"""
    spectrum: Tensor
    """P, (*B, m_1, ..., m_I)"""
    log_evidence: Tensor
    """(*B)"""
    weighted_square: Tensor
    """sum of abs(W)^2 over rows and columns, (*B)"""
    inverse_trace: Tensor
    """tr C^-1, (*B)"""

    @property
    def mean(self) -> Tensor:
        """Posterior mean of x, (*B, L, n_1, ..., n_I)."""
        return outer(self.scales).unsqueeze(-len(self.scales) - 1) * self.correlation

    @property
    def variance(self) -> Tensor:
        """Posterior variances of x, (*B, n_1, ..., n_I), by the direct formula.

        It cancels where the data determine an entry to eight digits; see
        :func:`posterior_variance`.
        """
        scale = outer(self.scales)
        return scale * (1 - scale * self.sensitivity).clamp(min=0)

    @property
    def mean_square(self) -> Tensor:
        """abs(Q)^2 averaged over columns, (*B, n_1, ..., n_I)."""
        column = -len(self.scales) - 1
        if self.correlation.shape[column] == 1:  # a mean of one is a slow copy
            return _square(self.correlation.squeeze(column))
        return _square(self.correlation).mean(column)

    @property
    def residual_square(self) -> Tensor:
        """Squared norm of y - A mean, averaged over columns, (*B)."""
        num_columns = self.correlation.shape[-len(self.scales) - 1]
        # not the square of the noise, a fourth power of y, which overflows sooner
        return self.noise * (self.noise * self.weighted_square) / num_columns


def condition(
    factors: Sequence[Tensor], scales: Sequence[Tensor], noise: Tensor, y: Tensor
) -> Conditioned:
    """Posterior of x and log evidence.

    Args:
        factors: A_k, (*B, m_k, n_k), of the dtype of ``y``.
        scales: g_k >= 0, (*B, n_k), real.
        noise: v > 0, (*B), real.
        y: (*B, L, m_1, ..., m_I).

    Example:
        >>> one = torch.ones(1, 1, dtype=torch.float64)
        >>> found = condition([one], [one[0]], one[0, 0], 4 * one)
        >>> found.mean.item(), found.variance.item()
        (2.0, 0.5)
    """
    num = len(factors)
    pairs = [
        torch.linalg.eigh((a * g.to(a.dtype).unsqueeze(-2)) @ a.mH)
        for a, g in zip(factors, scales, strict=True)
    ]
    spectrum = outer([p.eigenvalues.clamp(min=0) for p in pairs])
    spectrum = spectrum + noise.reshape(*noise.shape, *[1] * num)
    rotated = [p.eigenvectors.mH @ a for p, a in zip(pairs, factors, strict=True)]
    z = mode_products(y, [p.eigenvectors.mH for p in pairs])
    w = z / spectrum.unsqueeze(-num - 1)
    inverse = 1 / spectrum
    modes = tuple(range(-num, 0))
    every = (-num - 1, *modes)
    square = _square(w)
    quadratic = (square * spectrum.unsqueeze(-num - 1)).sum(every)
    half, num_columns = (1.0 if y.is_complex() else 0.5), y.shape[-num - 1]
    constant = num_columns * math.prod(y.shape[-num:]) * math.log(math.pi / half)
    evidence = -half * (num_columns * spectrum.log().sum(modes) + quadratic + constant)
    return Conditioned(
        list(scales),
        noise,
        mode_products(w, [b.mH for b in rotated]),
        mode_products(inverse, [_square(b).mT for b in rotated]),
        spectrum,
        evidence,
        square.sum(every),
        inverse.sum(modes),
    )


def posterior_variance(
    factors: Sequence[Tensor], scales: Sequence[Tensor], noise: Tensor
) -> Tensor:
    """Posterior variances by a sum of positive terms, (*B, n_1, ..., n_I).

        variance = g o sum_q abs(V_jq)^2 v / (v + prod s_q^2),  diag(g_k)^(1/2) A_k^H = V_k s_k U^H

    with the full n_k x n_k unitary V_k; exact to rounding also where the data determine x.

    Example:
        >>> tiny = torch.tensor(1e-20, dtype=torch.float64)
        >>> one = torch.ones(1, 1, dtype=torch.float64)
        >>> round(float(posterior_variance([one], [one[0]], tiny)) * 1e20, 9)
        1.0
    """
    values, squares = [], []
    for a, g in zip(factors, scales, strict=True):
        left, s, _ = torch.linalg.svd(g.sqrt().to(a.dtype).unsqueeze(-1) * a.mH, full_matrices=True)
        padding = (0, left.shape[-1] - s.shape[-1])
        values.append(torch.nn.functional.pad(s.square(), padding))
        squares.append(_square(left))
    v = noise.reshape(*noise.shape, *[1] * len(values))
    return outer(list(scales)) * mode_products(v / (v + outer(values)), squares)


def kronecker_log_evidence(
    factors: Sequence[Tensor], scales: Sequence[Tensor], noise: Tensor, y: Tensor
) -> Tensor:
    """log p(y), (*B), differentiable in scales and noise by the closed form above.

    No derivative of an eigenvector is taken, so equal eigenvalues do no harm. Arguments as for
    :func:`condition`; factors and ``y`` are constants.

    Example:
        >>> one = torch.ones(1, 1, dtype=torch.float64)
        >>> scale = torch.ones(1, dtype=torch.float64, requires_grad=True)
        >>> kronecker_log_evidence([one], [scale], one[0, 0], 2 * one).backward()
        >>> scale.grad.tolist()
        [0.25]
    """
    found: Tensor = _LogEvidence.apply(noise, y, len(factors), *factors, *scales)
    return found


class _LogEvidence(torch.autograd.Function):
    """log p(y) with its closed-form gradient."""

    @staticmethod
    def forward(ctx: Any, noise: Tensor, y: Tensor, num: int, *parts: Tensor) -> Tensor:
        found = condition(parts[:num], parts[num:], noise, y)
        half, num_columns = (1.0 if y.is_complex() else 0.5), y.shape[-num - 1]
        slope = _square(found.correlation).sum(-num - 1) - num_columns * found.sensitivity
        by_scale = [half * contract_all_but(slope, found.scales, k) for k in range(num)]
        by_noise = half * (found.weighted_square - num_columns * found.inverse_trace)
        ctx.save_for_backward(by_noise, *by_scale)
        ctx.num = num
        return found.log_evidence

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # otherwise a second derivative would lack this part unnoticed
            raise NumericalError(
                message(
                    "The evidence has a first derivative only",
                    where="create_graph",
                    got=True,
                    remedy="use SVI, HMC or NUTS, which need no curvature",
                )
            )
        (gradient,) = gradients
        by_noise, *by_scale = ctx.saved_tensors
        scales = [gradient.unsqueeze(-1) * part for part in by_scale]
        return (gradient * by_noise, None, None, *[None] * ctx.num, *scales)


def _square(x: Tensor) -> Tensor:
    """abs(x)^2 without a square root."""
    return x.real.square() + x.imag.square() if x.is_complex() else x.square()
