"""One update of the prior variances of a Kronecker-structured sparse model, by five rules.

Given one pass of :func:`probkit.linalg.kronecker_gaussian.condition` at g = g_1 x ... x g_I, with
T = column mean of abs(mean)^2, V the posterior variances, S = diag(A^H C^-1 A), Q = A^H C^-1 y:

    evidence         g_k <- sqrt(sum_others T / prod g / sum_others S prod g)        one sweep
    pattern-coupled  g_k = C_k t_k,  t_k <- t_k sqrt(C_k' (a / g_k^2) / C_k' b)      one sweep
    one-sweep EM     g_k <- (n_k / n) sum_others (T + V) / prod g                    one sweep
    AM               the same, until the product settles                            many sweeps
    SVD              leading singular vectors of the unfoldings of T + V            no likelihood

The first two minimise a majoriser of -log evidence (see :mod:`probkit.infer.evidence`, whose
``update_kronecker_scales`` is the first rule for one problem; here it is batched and makes no
grid-sized temporaries, since a step at 10^6 atoms is memory traffic). In log g the EM objective is
convex, so AM and one sweep of it differ in speed only. A scale of zero stays zero.

Scales are balanced after a step (equal geometric means): only their products matter.
Source: He & Joseph, arXiv 2307.14719 (AM, SVD); Wipf & Nagarajan (2007) for the majoriser.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from probkit.linalg.kronecker_gaussian import Conditioned
from probkit.linalg.mode_products import contract_in_turn, outer

__all__ = [
    "alternating_sweep",
    "balance",
    "coupled_step",
    "evidence_noise",
    "evidence_step",
    "expectation_noise",
    "expectation_step",
    "second_moments",
    "singular_vectors",
]


def evidence_step(found: Conditioned) -> list[Tensor]:
    """The majorise-minimise step: new g_k, (B, n_k); never lowers the evidence."""
    # T / prod g_l is g_k^2 sum abs(Q)^2 prod r_l with r_l = old^2 / new: no division by zero
    new, ratio = list(found.scales), list(found.scales)

    def update(k: int, sums: list[Tensor]) -> None:
        above, below = sums
        old = found.scales[k]
        new[k] = old * torch.where(below > 0, above / _positive(below), 0).sqrt()
        ratio[k] = torch.where(new[k] > 0, old.square() / _positive(new[k]), 0)

    contract_in_turn([found.mean_square, found.sensitivity], [ratio, new], update)
    return balance(new)


def coupled_step(
    found: Conditioned, weights: list[Tensor], patterns: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """New weights t_k (B, p_k) of patterns C_k (B, n_k, p_k), and the new g_k = C_k t_k."""
    new, ratio, weights = list(found.scales), list(found.scales), list(weights)

    def update(k: int, sums: list[Tensor]) -> None:
        up, down = ((patterns[k].mT @ s.unsqueeze(-1)).squeeze(-1) for s in sums)
        weights[k] = weights[k] * torch.where(down > 0, up / _positive(down), 0).sqrt()
        new[k] = (patterns[k] @ weights[k].unsqueeze(-1)).squeeze(-1)
        old = found.scales[k]
        ratio[k] = torch.where(new[k] > 0, old.square() / _positive(new[k]), 0)

    # the first sums are those of T / g_k^2
    contract_in_turn([found.mean_square, found.sensitivity], [ratio, new], update)
    balanced = balance(new)
    factors = [_level(b) / _level(n) for b, n in zip(balanced, new, strict=True)]
    return [w * f.unsqueeze(-1) for w, f in zip(weights, factors, strict=True)], balanced


def expectation_step(found: Conditioned) -> list[Tensor]:
    """One sweep of alternating minimisation on T + V: an EM step."""
    return balance(alternating_sweep(second_moments(found), found.scales))


def second_moments(found: Conditioned) -> Tensor:
    """T + V, (B, n_1, ..., n_I)."""
    scale = outer(found.scales)
    # g (max(1 - g S, 0) + g mean of abs(Q)^2), in place: a new grid costs as much as its arithmetic
    total = (scale * found.sensitivity).neg_().add_(1).clamp_(min=0)
    return total.addcmul_(scale, found.mean_square).mul_(scale)


def alternating_sweep(total: Tensor, scales: list[Tensor]) -> list[Tensor]:
    """g_k <- (n_k / n) sum_others (T + V) / prod g, one factor after the other."""
    new = list(scales)
    counts = torch.stack([(g > 0).sum(-1) for g in scales]).clamp(min=1)
    inverse = [torch.where(g > 0, 1 / _positive(g), 0) for g in scales]

    def update(k: int, sums: list[Tensor]) -> None:
        others = (counts.prod(0) / counts[k]).unsqueeze(-1)
        new[k] = sums[0] / others.to(total.dtype)
        inverse[k] = torch.where(new[k] > 0, 1 / _positive(new[k]), 0)

    contract_in_turn([total], [inverse], update)
    return new


def singular_vectors(total: Tensor) -> list[Tensor]:
    """Factors of the leading rank-one part of second moments (B, n_1, ..., n_I), by unfolding."""
    found, rest = [], total
    while rest.dim() > 2:
        unfolded = rest.flatten(2)
        vector = torch.linalg.eigh(unfolded @ unfolded.mT).eigenvectors[..., -1].abs()
        found.append(vector)
        rest = (vector.unsqueeze(-2) @ unfolded).reshape(rest.shape[0], *rest.shape[2:])
    return balance([*found, rest.abs()])


def evidence_noise(found: Conditioned) -> Tensor:
    """The majorise-minimise step of the noise variance, (B)."""
    num_columns = found.correlation.shape[-len(found.scales) - 1]
    return found.noise * (found.weighted_square / num_columns / found.inverse_trace).sqrt()


def expectation_noise(found: Conditioned) -> Tensor:
    """The EM step of the noise variance, (B)."""
    num_data = math.prod(found.spectrum.shape[-len(found.scales) :])
    explained = found.noise * (num_data - found.noise * found.inverse_trace)
    return (found.residual_square + explained) / num_data


def balance(scales: list[Tensor]) -> list[Tensor]:
    """The same products with equal geometric means (of the positive entries) in every factor."""
    levels = [_level(g).log() for g in scales]
    common = torch.stack(levels).mean(0)
    return [g * (common - m).exp().unsqueeze(-1) for g, m in zip(scales, levels, strict=True)]


def _level(scale: Tensor) -> Tensor:
    """Geometric mean of the positive entries."""
    kept = scale > 0
    total = torch.where(kept, _positive(scale).log(), 0).sum(-1)
    return (total / kept.sum(-1).clamp(min=1)).exp()


def _positive(x: Tensor) -> Tensor:
    return x.clamp(min=torch.finfo(x.dtype).tiny)
