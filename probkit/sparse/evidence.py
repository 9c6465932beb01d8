"""Evidence maximisation: majorise-minimise climbs from several starts, slices chosen by evidence.

    "flat": climb from equal scales;  "em": 200 EM steps first;
    "svd": SVD updates first, from scales far too large: nearly the least-norm solution;
    "rank1": first a one-factor problem for each leading singular vector of the data's unfoldings,
    with a noise of its own (if x is an outer product, so is y; arXiv 2412.00310);
    Then, each: climb, drop slices not worth half the log of the number of data, take up absent
    ones that are, polish; keep the start of the largest log evidence less the price of its slices.

A climb is the closed-form step of :mod:`probkit.sparse.updates`, which never lowers the evidence
and needs some 70 steps where EM has not converged after a thousand; the evidence has local maxima,
hence the starts. Cost: a few hundred passes, all but the first on few slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from probkit.infer.protocols import State
from probkit.linalg.kronecker_gaussian import Conditioned
from probkit.sparse.problem import Active, Problem, scatter
from probkit.sparse.program import Layout, RecoveryProgram, get_scales, put
from probkit.sparse.slices import drop_worth, entry_worth
from probkit.sparse.updates import (
    evidence_noise,
    evidence_step,
    expectation_noise,
    expectation_step,
    second_moments,
    singular_vectors,
)

__all__ = ["STARTS", "EvidenceProgram"]

STARTS = ("flat", "em", "svd", "rank1")

_FIRST_CHECK = 6
_EM_STEPS = 200
_SPLIT_STEPS = 60
_SVD_STEPS = 150
_SVD_LEVEL = 100.0
_SVD_TOLERANCE, _SVD_DROP = 1e-4, 1e-3
_SETTLE = 4
_POLISH = 20
_MAX_CYCLES = 5


class EvidenceProgram(RecoveryProgram):
    """Multi-start evidence maximisation with selection of slices.

    Args:
        problem, layout: see :class:`RecoveryProgram`.
        starts: names of the starts.
        select: whether to drop and take up slices by their evidence.
        tolerance: of the relative change of the evidence that ends a climb.
        drop_below: slices below this share of their factor's largest are dropped on the way.
    """

    phases = ("warm", "climb", "drop", "enter", "polish")

    def __init__(
        self,
        problem: Problem,
        layout: Layout,
        *,
        starts: Sequence[str] = STARTS,
        select: bool = True,
        tolerance: float = 1e-6,
        drop_below: float = 1e-6,
    ) -> None:
        options: dict[str, Any] = {
            "starts": list(starts),
            "select": select,
            "tolerance": tolerance,
            "drop_below": drop_below,
            "learn_noise": problem.noise is None,
        }
        super().__init__(problem, layout, options)
        self.starts, self.num_starts, self.select = list(starts), len(starts), select
        self.tolerance, self.drop_below = tolerance, drop_below
        self._split = rank_one_split(self.problem.y) if "rank1" in self.starts else []

    def initialize(self, generator: torch.Generator) -> State:
        state = super().initialize(generator)
        first = torch.tensor(self.first_phase(0))
        split = {f"split_noise_{k}": v for k, v in enumerate(self._split_noises())}
        return {**state, **split, "phase": first, "cycles": torch.tensor(0)}

    def next_phase(self, state: State) -> int:
        phase = self.phases[int(state["phase"])]
        if phase == "climb" and not self.select:
            return len(self.phases)
        return super().next_phase(state)

    def _advance(self, state: State) -> State:
        again = self.phases[int(state["phase"])] == "enter" and bool(state["changed"].any())
        if again and int(state["cycles"]) < _MAX_CYCLES:
            changed = state["changed"]
            back = self._enter({**state, "phase": torch.tensor(self.phases.index("drop"))})
            return {**back, "done": ~changed, "cycles": state["cycles"] + 1}
        new = super()._advance(state)
        if int(new["start"]) == int(state["start"]):
            return new
        split = {f"split_noise_{k}": v for k, v in enumerate(self._split_noises())}
        return {**new, **split, "cycles": torch.tensor(0)}

    # -- phases -----------------------------------------------------------------------------------

    def warm(self, state: State, rows: Tensor) -> State:
        """EM steps, or SVD updates to their own stop."""
        start, count = self.starts[int(state["start"])], int(state["count"])
        if start == "rank1":
            return self._split_step(state, rows)
        active, found = self._pass(state, rows)
        noise = expectation_noise(found) if self.learn else active.noise
        if start == "em":
            new = self.prune(expectation_step(found), self.drop_below)
            over = torch.full_like(found.log_evidence, count + 1 >= _EM_STEPS, dtype=torch.bool)
        else:
            new = self.prune(singular_vectors(second_moments(found)), _SVD_DROP)
            over = _change(new, active.scales) <= _SVD_TOLERANCE
            over = over | (count + 1 >= _SVD_STEPS)
        return self._write(state, rows, active, new, noise, found, over)

    def climb(self, state: State, rows: Tensor) -> State:
        """Majorise-minimise steps until the evidence settles."""
        active, found = self._pass(state, rows)
        noise = evidence_noise(found) if self.learn else active.noise
        new = self.prune(evidence_step(found), self.drop_below)
        change = (found.log_evidence - state["previous"][rows]).abs()
        over = change < self.tolerance * (1 + found.log_evidence.abs())
        over = over & (int(state["count"]) >= _FIRST_CHECK)
        return self._write(state, rows, active, new, noise, found, over)

    def drop(self, state: State, rows: Tensor) -> State:
        """Drop the least slice of every factor that is not worth its price, then settle."""
        active = self.problem.active(get_scales(state), state["noise"], rows)
        scales, any_dropped = [], torch.zeros_like(rows, dtype=torch.bool)
        for k, scale in enumerate(active.scales):
            worth, which = drop_worth(active, k).min(-1)
            dropped = worth < self.problem.penalty
            keep = torch.ones_like(scale).scatter(-1, which.unsqueeze(-1), 0.0)
            scales.append(torch.where(dropped.unsqueeze(-1), scale * keep, scale))
            any_dropped = any_dropped | dropped
        new = {**state, **self._scattered(state, rows, active, scales)}
        new["done"] = put(state["done"], rows, ~any_dropped)
        return self._settle(new, rows[any_dropped])

    def enter(self, state: State, rows: Tensor) -> State:
        """Take up the absent slice that gains most beyond its price, if any, then settle."""
        active = self.problem.active(get_scales(state), state["noise"], rows)
        parts = [entry_worth(self.problem, active, k, rows) for k in range(self.num_factors)]
        gain, which = torch.cat([p[0] for p in parts], -1).max(-1)
        entering = gain > self.problem.penalty
        best = torch.cat([p[1] for p in parts], -1).gather(-1, which.unsqueeze(-1))
        added = torch.zeros(len(rows), sum(self.problem.sizes)).to(best)
        added = added.scatter(-1, which.unsqueeze(-1), best * entering.unsqueeze(-1))
        new = dict(state)
        for k, part in enumerate(added.split(self.problem.sizes, -1)):
            name = f"scale_{k}"
            new[name] = put(state[name], rows, state[name][rows] + part)
        new["changed"] = put(state["changed"], rows, state["changed"][rows] | entering)
        full = int(state["count"]) + 1 >= sum(self.problem.sizes)
        new["done"] = put(state["done"], rows, ~entering | full)
        return self._settle(new, rows[entering])

    def polish(self, state: State, rows: Tensor) -> State:
        """A last climb, of a fixed number of steps."""
        active, found = self._pass(state, rows)
        noise = evidence_noise(found) if self.learn else active.noise
        new = self.prune(evidence_step(found), self.drop_below)
        over = torch.full_like(found.log_evidence, False, dtype=torch.bool)
        over = over | (int(state["count"]) + 1 >= _POLISH)
        return self._write(state, rows, active, new, noise, found, over)

    # -- helpers ----------------------------------------------------------------------------------

    def first_scales(self, start: int) -> list[Tensor]:
        scales = super().first_scales(start)
        if self.starts[start] != "svd":
            return scales
        # at the power of the data the updates lock onto the few largest atoms of a smoothed mean
        return [g * _SVD_LEVEL ** (1 / self.num_factors) for g in scales]

    def first_phase(self, start: int) -> int:
        return int(self.starts[start] == "flat")

    def _split_noises(self) -> list[Tensor]:
        """Starting noise variances of the one-factor problems, (B) each."""
        return [0.1 * y.abs().square().flatten(1).mean(1) for y in self._split]

    def _split_step(self, state: State, rows: Tensor) -> State:
        """One climbing step of every one-factor problem."""
        new: State = {}
        evidence = torch.zeros_like(state["noise"][rows])
        for k, y in enumerate(self._split):
            part = Problem([self.problem.factors[k]], y, None)
            noise = state[f"split_noise_{k}"]
            active = part.active([state[f"scale_{k}"]], noise, rows)
            found = active.condition()
            evidence = evidence + found.log_evidence
            scale = self.prune(evidence_step(found), self.drop_below)
            (whole,) = scatter(scale, active.index, part.sizes)
            new[f"scale_{k}"] = put(state[f"scale_{k}"], rows, whole)
            floor = 1e-8 * y.abs().square().flatten(1).mean(1)[rows]
            new[f"split_noise_{k}"] = put(noise, rows, torch.maximum(evidence_noise(found), floor))
        over = int(state["count"]) + 1 >= _SPLIT_STEPS
        new["evidence"] = put(state["evidence"], rows, evidence)
        new["done"] = put(state["done"], rows, torch.full_like(rows, over, dtype=torch.bool))
        return new

    def _pass(self, state: State, rows: Tensor) -> tuple[Active, Conditioned]:
        active = self.problem.active(get_scales(state), state["noise"], rows)
        return active, active.condition()

    def _scattered(self, state: State, rows: Tensor, active: Active, scales: list[Tensor]) -> State:
        whole = scatter(scales, active.index, self.problem.sizes)
        return {f"scale_{k}": put(state[f"scale_{k}"], rows, g) for k, g in enumerate(whole)}

    def _write(
        self,
        state: State,
        rows: Tensor,
        active: Active,
        scales: list[Tensor],
        noise: Tensor,
        found: Conditioned,
        over: Tensor,
    ) -> State:
        evidence = put(state["evidence"], rows, found.log_evidence)
        return {
            **self._scattered(state, rows, active, scales),
            "noise": put(
                state["noise"], rows, self.noise_floor(noise, rows) if self.learn else noise
            ),
            "evidence": evidence,
            "previous": evidence,
            "done": put(state["done"], rows, over),
        }

    def _settle(self, state: State, rows: Tensor) -> State:
        """A few climbing steps without dropping anything, for the problems in ``rows``."""
        if not len(rows):
            return state
        for _ in range(_SETTLE):
            active, found = self._pass(state, rows)
            noise = evidence_noise(found) if self.learn else active.noise
            done = state["done"][rows]
            new = self._write(state, rows, active, evidence_step(found), noise, found, done)
            state = {**state, **new}
        return state


def rank_one_split(y: Tensor) -> list[Tensor]:
    """Leading singular vectors of the unfoldings of y (B, L, M_1, ..., M_I), (B, 1, M_k) each.

    They share the norm of y. The columns of y count as further rows of every unfolding.
    """
    size = y.flatten(1).norm(dim=-1) ** (1 / (y.dim() - 2))
    vectors = []
    for k in range(2, y.dim()):
        unfolded = y.movedim(k, 1).flatten(2)
        leading = torch.linalg.eigh(unfolded @ unfolded.mH).eigenvectors[..., -1]
        vectors.append((leading * size.unsqueeze(-1)).unsqueeze(1))
    return vectors


def _change(new: list[Tensor], old: list[Tensor]) -> Tensor:
    """Relative change of the product of scales, (b), by products of inner products."""

    def inner(a: list[Tensor], b: list[Tensor]) -> Tensor:
        return torch.stack([(x * y).sum(-1) for x, y in zip(a, b, strict=True)]).prod(0)

    square = inner(new, new) - 2 * inner(new, old) + inner(old, old)
    return (square.clamp(min=0) / inner(old, old)).sqrt()
