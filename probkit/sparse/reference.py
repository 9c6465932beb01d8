"""The methods of the paper on the matrix-free pass: AM, SVD, KSBL, pattern-coupled; classic SBL.

Each is an EM-like iteration with the authors' constants: start at g = 1, drop slices below a share
of their factor's largest, stop when the product of the scales changes by less than 1e-4 (relative)
or after 150 steps. They are here for comparison; :mod:`probkit.sparse.evidence` finds larger
evidence in fewer steps. They work in the units of the data, as published.

- am: alternating minimisation of the EM objective until norm(change) <= 1e-5, norm(g_k) = 1.
- ksbl: one sweep of it.
- classic: the same on a problem whose only factor is the whole dictionary.
- svd: leading singular vectors of the unfoldings of T + V.
- paper_pattern_coupled: am whose factors 1, 3, ... are projected, g_k = 1e-5 + C_k t_k, t_k the
  non-negative least-squares fit to the am target; at most 9 sweeps.

Source: He & Joseph, arXiv 2307.14719.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from scipy.optimize import nnls
from torch import Tensor

from probkit.infer.protocols import State
from probkit.linalg.mode_products import outer
from probkit.sparse.problem import Problem, scatter
from probkit.sparse.program import Layout, RecoveryProgram, get_scales, put
from probkit.sparse.updates import (
    alternating_sweep,
    expectation_noise,
    second_moments,
    singular_vectors,
)

__all__ = ["MAX_STEPS", "REFERENCE_METHODS", "ReferenceProgram", "neighbours"]

REFERENCE_METHODS = ("am", "svd", "ksbl", "classic", "paper_pattern_coupled")

MAX_STEPS = 150
_TOLERANCE = 1e-4
_INNER_TOLERANCE, _MAX_INNER = 1e-5, 2000
_COUPLED_TOLERANCE, _COUPLED_SWEEPS, _COUPLED_FLOOR = 1e-4, 9, 1e-5
_DROP = {"am": 1e-2, "ksbl": 1e-2, "svd": 1e-3, "classic": 1e-3, "paper_pattern_coupled": 1e-2}


def neighbours(size: int, strength: float, *, like: Tensor) -> Tensor:
    """(size, size) with ones on the diagonal and ``strength`` beside it."""
    eye = torch.eye(size, dtype=like.dtype, device=like.device)
    beside = torch.ones(size - 1, dtype=like.dtype, device=like.device)
    return eye + strength * (torch.diag(beside, 1) + torch.diag(beside, -1))


class ReferenceProgram(RecoveryProgram):
    """One of the paper's Kronecker methods.

    Args:
        problem, layout: see :class:`RecoveryProgram`.
        method: one of ``REFERENCE_METHODS``.
        coupling: strength beside the diagonal of C_k, of the pattern-coupled method.
        drop_below: share of a factor's largest scale, for all factors or each; None for the
            method's own.
        drop_absolute: scales below it are dropped as well.
        max_steps: the authors stop after 150.
    """

    phases = ("iterate",)

    def __init__(
        self,
        problem: Problem,
        layout: Layout,
        *,
        method: str,
        coupling: float = 0.8,
        drop_below: float | Sequence[float] | None = None,
        drop_absolute: float = 0.0,
        max_steps: int = MAX_STEPS,
    ) -> None:
        if drop_below is None:
            drop_below = _DROP[method] / (2 if problem.noise is None else 1)
        if not isinstance(drop_below, Sequence):
            drop_below = [drop_below] * len(problem.factors)
        options: dict[str, Any] = {
            "method": method,
            "coupling": coupling,
            "drop_shares": list(drop_below),
            "drop_absolute": drop_absolute,
            "max_steps": max_steps,
        }
        super().__init__(problem, layout, options, normalize=False)
        self.method, self.coupling, self.max_steps = method, coupling, max_steps
        self.drop_shares, self.drop_absolute = list(drop_below), drop_absolute

    def first_scales(self, start: int) -> list[Tensor]:
        return [torch.where(g > 0, 1.0, 0.0).to(g) for g in super().first_scales(start)]

    def score(self, scales: list[Tensor], noise: Tensor) -> Tensor:
        return self.problem.active(scales, noise).condition().log_evidence

    def inclusion(self, scales: list[Tensor], noise: Tensor) -> list[Tensor]:
        """One for the slices that are left: these methods do not weigh them."""
        del noise
        return [(g > 0).to(g) for g in scales]

    def _compare_with_nothing(self, state: State) -> State:
        return state

    def iterate(self, state: State, rows: Tensor) -> State:
        scales = []
        for g, share in zip(get_scales(state), self.drop_shares, strict=True):
            largest = g[rows].amax(-1, keepdim=True)
            least = torch.minimum((share * largest).clamp(min=self.drop_absolute), largest)
            scales.append(torch.where((g[rows] >= least) & (g[rows] > 0), g[rows], 0.0))
        active = self.problem.active(
            [put(state[f"scale_{k}"], rows, g) for k, g in enumerate(scales)], state["noise"], rows
        )
        found = active.condition()
        total = second_moments(found)
        if self.method == "svd":
            new = singular_vectors(total)
        elif self.method in ("ksbl", "classic"):
            new = alternating_sweep(total, active.scales)
        elif self.method == "am":
            new = _alternate(total, active.scales)
        else:
            new = self._coupled(total, active.scales, active.index)
        old = outer(active.scales).flatten(1)
        change = (outer(new).flatten(1) - old).norm(dim=-1) / old.norm(dim=-1)
        over = (change <= _TOLERANCE) | (int(state["count"]) + 1 >= self.max_steps)
        noise = expectation_noise(found) if self.learn else active.noise
        whole = scatter(new, active.index, self.problem.sizes)
        written = {f"scale_{k}": put(state[f"scale_{k}"], rows, g) for k, g in enumerate(whole)}
        return {
            **written,
            "noise": put(state["noise"], rows, self.noise_floor(noise, rows)),
            "evidence": put(state["evidence"], rows, found.log_evidence),
            "done": put(state["done"], rows, over),
        }

    def _coupled(self, total: Tensor, scales: list[Tensor], index: list[Tensor]) -> list[Tensor]:
        """AM sweeps whose first, third, ... factor is projected on coupled patterns."""
        new = list(scales)
        for _ in range(_COUPLED_SWEEPS):
            old = outer(new)
            for k in range(self.num_factors):
                target = _target(total, new, k)
                if k % 2 == 0:
                    target = self._project(target, new[k], index[k], self.problem.sizes[k])
                new[k] = target
            new = _unit_norms(new)
            if float((outer(new) - old).norm() / old.norm()) <= _COUPLED_TOLERANCE:
                break
        return new

    def _project(self, target: Tensor, present: Tensor, index: Tensor, size: int) -> Tensor:
        rows = []
        patterns = neighbours(size, self.coupling, like=target)
        for t, g, i in zip(target, present, index, strict=True):
            kept = i[g > 0]
            c = patterns[kept][:, kept]
            weights, _ = nnls(c.cpu().numpy(), t[g > 0].cpu().numpy())
            fitted = _COUPLED_FLOOR + c @ torch.as_tensor(weights, dtype=t.dtype, device=t.device)
            rows.append(torch.zeros_like(t).masked_scatter(g > 0, fitted))
        return torch.stack(rows)


def _target(total: Tensor, scales: list[Tensor], k: int) -> Tensor:
    """The minimiser over factor k alone."""
    order = [k, *(j for j in range(len(scales)) if j != k)]
    moved = total.permute(0, *(j + 1 for j in order))
    return alternating_sweep(moved, [scales[j] for j in order])[0]


def _alternate(total: Tensor, scales: list[Tensor]) -> list[Tensor]:
    """Sweeps until the product changes by less than the absolute tolerance, problem by problem."""
    new, settled = scales, total.new_zeros(len(total), dtype=torch.bool)
    old = outer(new)
    for _ in range(_MAX_INNER):
        swept = _unit_norms(alternating_sweep(total, new))
        new = [torch.where(settled.unsqueeze(-1), a, b) for a, b in zip(new, swept, strict=True)]
        product = outer(new)
        settled = settled | ((product - old).flatten(1).norm(dim=-1) <= _INNER_TOLERANCE)
        if bool(settled.all()):
            break
        old = product
    return new


def _unit_norms(scales: list[Tensor]) -> list[Tensor]:
    """All factors but the last of norm one, the product unchanged."""
    norms = [g.norm(dim=-1, keepdim=True) for g in scales[:-1]]
    last = scales[-1]
    for n in norms:
        last = last * n
    return [*(g / n for g, n in zip(scales[:-1], norms, strict=True)), last]
