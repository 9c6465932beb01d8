"""Pattern-coupled evidence maximisation: neighbouring slices share their scales.

    g_k = C_k t_k,  t_k >= 0,  C_k = I + b (ones beside the diagonal)  on the coupled factors

By Jensen's inequality the majoriser of :mod:`probkit.sparse.updates` separates over t_k, so each
step is closed-form and never lowers the evidence (the paper projects by non-negative least squares,
which may). The strength b is learned: one climb for each candidate, the largest evidence wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from probkit.infer.protocols import State
from probkit.sparse.problem import Problem, scatter
from probkit.sparse.program import Layout, RecoveryProgram, get_scales, put
from probkit.sparse.reference import neighbours
from probkit.sparse.updates import coupled_step, evidence_noise

__all__ = ["CoupledProgram"]

_FIRST_CHECK = 11


class CoupledProgram(RecoveryProgram):
    """Climbs with coupled scales.

    Args:
        problem, layout: see :class:`RecoveryProgram`.
        couplings: strengths b to choose from.
        coupled: numbers of the coupled factors; None for the first, third, ...
        tolerance: of the relative change of the evidence.
        drop_below: slices below this share of their factor's largest are dropped.
    """

    phases = ("climb",)

    def __init__(
        self,
        problem: Problem,
        layout: Layout,
        *,
        couplings: Sequence[float] = (0.0, 0.5, 0.8),
        coupled: Sequence[int] | None = None,
        tolerance: float = 1e-6,
        drop_below: float = 1e-8,
    ) -> None:
        num = len(problem.factors)
        chosen = list(range(0, num, 2)) if coupled is None else list(coupled)
        options: dict[str, Any] = {"couplings": list(couplings), "coupled": chosen}
        super().__init__(problem, layout, options)
        self.couplings, self.coupled = list(couplings), chosen
        self.tolerance, self.drop_below = tolerance, drop_below
        self.num_starts = len(self.couplings)

    def initialize(self, generator: torch.Generator) -> State:
        state = super().initialize(generator)
        weights = {f"weight_{k}": g for k, g in enumerate(self._weights())}
        best = torch.full_like(state["noise"], self.couplings[0])
        return {**state, **weights, "best_coupling": best}

    def first_scales(self, start: int) -> list[Tensor]:
        patterns = self._patterns(start)
        pairs = zip(patterns, self._weights(), strict=True)
        usable = super().first_scales(start)
        return [
            torch.where(u > 0, (c @ t.unsqueeze(-1)).squeeze(-1), 0.0)
            for (c, t), u in zip(pairs, usable, strict=True)
        ]

    def score(self, scales: list[Tensor], noise: Tensor) -> Tensor:
        return self.problem.active(scales, noise).condition().log_evidence

    def climb(self, state: State, rows: Tensor) -> State:
        """One coupled step."""
        active = self.problem.active(get_scales(state), state["noise"], rows)
        found = active.condition()
        weights = [w[rows] for w in get_scales(state, "weight")]
        patterns = [
            c[i] * (g > 0).unsqueeze(-1)
            for c, i, g in zip(
                self._patterns(int(state["start"])), active.index, active.scales, strict=True
            )
        ]
        weights, scales = coupled_step(found, weights, patterns)
        whole = scatter(self.prune(scales, self.drop_below), active.index, self.problem.sizes)
        change = (found.log_evidence - state["previous"][rows]).abs()
        over = change < self.tolerance * (1 + found.log_evidence.abs())
        over = over & (int(state["count"]) >= _FIRST_CHECK)
        noise = self.noise_floor(evidence_noise(found), rows) if self.learn else active.noise
        evidence = put(state["evidence"], rows, found.log_evidence)
        return {
            **{f"scale_{k}": put(state[f"scale_{k}"], rows, g) for k, g in enumerate(whole)},
            **{f"weight_{k}": put(state[f"weight_{k}"], rows, w) for k, w in enumerate(weights)},
            "noise": put(state["noise"], rows, noise),
            "evidence": evidence,
            "previous": evidence,
            "done": put(state["done"], rows, over),
        }

    def diagnostics(self, state: State) -> dict[str, Any]:
        coupling = state["best_coupling"].reshape(self.layout.batch)
        return {**super().diagnostics(state), "coupling": coupling.tolist()}

    def _advance(self, state: State) -> State:
        new = super()._advance(state)
        better = new["best_score"] > state["best_score"]
        now = torch.full_like(new["best_coupling"], self.couplings[int(state["start"])])
        new["best_coupling"] = torch.where(better, now, new["best_coupling"])
        restart = {f"weight_{k}": g for k, g in enumerate(self._weights())}
        return {**new, **restart}

    def _weights(self) -> list[Tensor]:
        return super().first_scales(0)

    def _patterns(self, start: int) -> list[Tensor]:
        """(N_k, N_k) each."""
        like, found = self.problem.power, []
        for k, size in enumerate(self.problem.sizes):
            strength = self.couplings[start] if k in self.coupled else 0.0
            found.append(neighbours(size, strength, like=like))
        return found
