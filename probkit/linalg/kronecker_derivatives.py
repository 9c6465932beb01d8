"""Derivative of the Kronecker log evidence in the dictionary's factors, in closed form.

With C = (A_1 x ... x A_I) diag(g) (...)^H + v I, R = C^-1 y as a tensor, mean X = g o A^H R, and
G_k = U_k diag(p_k) U_k^H, P as in :mod:`probkit.linalg.kronecker_gaussian`,

    d log p = Re sum conj(D_k) dA_k,
    D_k = 2 c (sum_{l, others} R conj(X x_j A_j, j != k) - L U_k diag(h_k) U_k^H A_k diag(g_k)),
    h_k = sum_others prod_{j != k} p_j / P.

This is torch's convention for gradients in complex matrices. Cost: that of one pass, twice. It
moves the columns of dictionaries that depend on parameters, such as the angles of an array.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from probkit.linalg.mode_products import contract_all_but, mode_products, outer

__all__ = ["factor_gradients"]


def factor_gradients(
    factors: Sequence[Tensor], scales: Sequence[Tensor], noise: Tensor, y: Tensor
) -> list[Tensor]:
    """Gradients of log p(y), summed over the batch, in each factor: (*B, m_k, n_k).

    Args:
        factors: A_k, (*B, m_k, n_k), of the dtype of ``y``.
        scales: g_k >= 0, (*B, n_k), real.
        noise: v > 0, (*B), real.
        y: (*B, L, m_1, ..., m_I).

    Example:
        >>> one = torch.ones(1, 1, dtype=torch.float64)
        >>> factor_gradients([one], [one[0]], one[0, 0], 2 * one)[0].item()
        0.5
    """
    num = len(factors)
    half, num_columns = (1.0 if y.is_complex() else 0.5), y.shape[-num - 1]
    scaled = [a * g.to(a.dtype).unsqueeze(-2) for a, g in zip(factors, scales, strict=True)]
    pairs = [torch.linalg.eigh(s @ a.mH) for s, a in zip(scaled, factors, strict=True)]
    values = [p.eigenvalues.clamp(min=0) for p in pairs]
    bases = [p.eigenvectors for p in pairs]
    spectrum = outer(values) + noise.reshape(*noise.shape, *[1] * num)
    rotated = mode_products(y, [u.mH for u in bases]) / spectrum.unsqueeze(-num - 1)
    residual = mode_products(rotated, bases)
    mean = mode_products(residual, [s.mH for s in scaled])
    found = []
    for k, a in enumerate(factors):
        others = list(factors)
        others[k] = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device).expand(
            *a.shape[:-2], -1, -1
        )
        predicted = mode_products(mean, others)
        by_data = _unfold(residual, k, num) @ _unfold(predicted, k, num).mH
        weights = contract_all_but(1 / spectrum, values, k).to(a.dtype)
        by_size = bases[k] @ (weights.unsqueeze(-1) * (bases[k].mH @ scaled[k]))
        found.append(2 * half * (by_data - num_columns * by_size))
    return found


def _unfold(x: Tensor, k: int, num: int) -> Tensor:
    """(*B, L, s_1, ..., s_I) to (*B, s_k, everything else)."""
    batch = x.dim() - num - 1
    return x.movedim(batch + 1 + k, batch).flatten(batch + 1)
