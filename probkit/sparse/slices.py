"""What one slice (one column of one factor) is worth: exact changes of the log evidence.

Changing the scale of column i of factor k by d changes G_k = A_k diag(g_k) A_k^H by d a_i a_i^H and
nothing else, so that the log evidence after the change costs one eigendecomposition of m_k x m_k
and one product along mode k. Slices are dropped where they add less than half the log of the number
of data (the price of a parameter in the Bayesian information criterion), and taken up again where
they would add more.

A dropped slice can only be worth its price if the derivative of the log evidence at scale zero,

    sum_others prod g (sum_l abs(Q)^2 - L S),

is positive well beyond its chance size; the others are not evaluated.
"""

from __future__ import annotations

import torch
from torch import Tensor

from probkit.linalg.mode_products import contract_all_but, mode_products, outer
from probkit.sparse.problem import Active, Problem

__all__ = ["drop_worth", "entry_worth", "evidence_after"]

_CHUNK = 1 << 21
_SCORE = 2.0
_TRIALS = (1e-3, 1e-2, 0.1, 1.0, 10.0)


def evidence_after(active: Active, k: int, columns: Tensor, changes: Tensor) -> Tensor:
    """Log evidence after each single change of a scale of factor k, without its constant, (b, c).

    Args:
        active: the present slices.
        k: the factor.
        columns: (b, M_k, c), the columns whose scales change.
        changes: (b, c), by how much.
    """
    grams = [
        (a * g.to(a.dtype).unsqueeze(-2)) @ a.mH
        for a, g in zip(active.factors, active.scales, strict=True)
    ]
    others = [torch.linalg.eigh(gram) for j, gram in enumerate(grams) if j != k]
    y = active.y.movedim(k + 2, 2)
    b, num_columns, size = y.shape[:3]
    rest = y.shape[3:]
    if others:
        bases = [pair.eigenvectors.mH for pair in others]
        y = mode_products(y.transpose(1, 2).flatten(1, 2), bases)
        y = y.reshape(b, size, num_columns, *rest).transpose(1, 2)
        product = outer([pair.eigenvalues.clamp(min=0) for pair in others]).flatten(1)
    else:
        product = active.noise.new_ones(b, 1)
    y = y.reshape(b, num_columns, size, -1)  # (b, L, M_k, others)
    half = 1.0 if y.is_complex() else 0.5
    step = max(_CHUNK // y.numel(), 1)
    found = []
    for start in range(0, columns.shape[-1], step):
        part = columns[..., start : start + step].mT  # (b, c, M_k)
        change = changes[:, start : start + step].to(part.dtype)
        outer_product = part.unsqueeze(-1) * part.conj().unsqueeze(-2)
        gram = grams[k].unsqueeze(1) + change[..., None, None] * outer_product
        values, vectors = torch.linalg.eigh(gram)
        spectrum = values.clamp(min=0).unsqueeze(-1) * product[:, None, None, :]
        spectrum = spectrum + active.noise[:, None, None, None]  # (b, c, M_k, others)
        z = vectors.mH.unsqueeze(2) @ y.unsqueeze(1)  # (b, c, L, M_k, others)
        square = z.real.square() + z.imag.square() if z.is_complex() else z.square()
        quadratic = (square.sum(2) / spectrum).sum((-2, -1))
        logdet = spectrum.log().sum((-2, -1))
        found.append(-half * (num_columns * logdet + quadratic))
    return torch.cat(found, -1)


def drop_worth(active: Active, k: int) -> Tensor:
    """Log evidence that is lost by dropping each slice of factor k, (b, n_k); inf where padded.

    The last slice of a factor is not dropped here (inf): that is the null model's decision.
    """
    zero = torch.zeros_like(active.scales[k])
    columns = torch.cat([active.factors[k], active.factors[k][..., :1]], -1)
    changes = torch.cat([-active.scales[k], zero[:, :1]], -1)
    evidence = evidence_after(active, k, columns, changes)
    worth = evidence[:, -1:] - evidence[:, :-1]
    present = active.scales[k] > 0
    alone = present.sum(-1, keepdim=True) <= 1
    return torch.where(present & ~alone, worth, torch.inf)


def entry_worth(problem: Problem, active: Active, k: int, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Log evidence gained by taking each absent slice of factor k, and the scale it is best at.

    Args:
        problem: all problems.
        active: the slices of the problems in ``rows``.
        k: the factor.
        rows: numbers of those problems.

    Returns:
        (b, N_k) each; gain zero for slices that are present or not worth a trial.
    """
    full = problem.factors[k]
    full = (full if full.shape[0] == 1 else full[rows]).expand(len(rows), -1, -1)
    scale = active.noise.new_zeros(len(rows), full.shape[-1])
    scale = scale.scatter_add(-1, active.index[k], active.scales[k])
    factors, scales = list(active.factors), list(active.scales)
    factors[k], scales[k] = full, scale
    found = Active(factors, scales, active.index, active.noise, active.y).condition()
    count = active.y.shape[1]
    slope = contract_all_but(count * (found.mean_square - found.sensitivity), scales, k)
    spread = contract_all_but(found.sensitivity.square(), [g.square() for g in scales], k)
    chance = (spread * count * (1 if active.y.is_complex() else 2)).sqrt()
    wanted = (scale == 0) & (slope > _SCORE * chance)
    gain, best = torch.zeros_like(scale), torch.zeros_like(scale)
    candidates = wanted.any(0).nonzero().squeeze(-1)
    if not len(candidates):
        return gain, best
    present = (scale > 0).sum(-1, keepdim=True).clamp(min=1)
    typical = scale.sum(-1, keepdim=True) / present
    columns = full[..., candidates]
    trials = torch.stack([typical * t for t in _TRIALS], -1)  # (b, 1, trials)
    trials = trials.expand(-1, len(candidates), -1)
    repeated = columns.unsqueeze(-1).expand(*columns.shape, len(_TRIALS)).flatten(-2)
    changes = torch.cat([trials.flatten(1), torch.zeros_like(trials[:, 0, :1])], -1)
    evidence = evidence_after(active, k, torch.cat([repeated, repeated[..., :1]], -1), changes)
    gains = (evidence[:, :-1] - evidence[:, -1:]).reshape(*trials.shape)
    top = gains.max(-1)
    chosen = trials.gather(-1, top.indices.unsqueeze(-1)).squeeze(-1)
    here = wanted[:, candidates]
    gain[:, candidates] = torch.where(here, top.values.clamp(min=0), 0)
    best[:, candidates] = torch.where(here, chosen, 0)
    return gain, best
