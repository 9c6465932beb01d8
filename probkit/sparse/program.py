"""Base of the recovery programs: sweeps over many problems at once, several starts, the best kept.

A program is a flat state and a ``sweep``, run by ``CAVI``. A start goes through phases; in a
phase each problem goes on until it is done, and finished problems cost nothing. When all phases
of a start are over, its penalised evidence is compared with the best so far, problem by problem.
Solving B problems together is therefore the same computation as solving them one after another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probkit.infer.protocols import State, StepInfo
from probkit.sparse.identifiability import support_findings
from probkit.sparse.posterior import SparsePosterior
from probkit.sparse.problem import Problem, scatter, scatter_grid
from probkit.sparse.slices import drop_worth, entry_worth

__all__ = ["NOISE_FLOOR", "Layout", "RecoveryProgram", "get_scales", "put"]

_NOISE_START = 0.1
NOISE_FLOOR = 1e-8


@dataclass(frozen=True)
class Layout:
    """How the user's arrays were shaped: leading batch, whether columns are snapshots, order."""

    batch: tuple[int, ...]
    snapshots: bool
    order: str
    shape: tuple[int, ...] = ()
    """of x, where it is not the factors' sizes"""
    rows: tuple[int, ...] = ()
    """of y, where it is not the factors'"""


def get_scales(state: State, prefix: str = "scale") -> list[Tensor]:
    """The tensors ``scale_0``, ``scale_1``, ... of a state."""
    count = sum(name.startswith(f"{prefix}_") for name in state)
    return [state[f"{prefix}_{k}"] for k in range(count)]


def put(values: Tensor, rows: Tensor, new: Tensor) -> Tensor:
    """A copy of ``values`` with ``new`` in ``rows``."""
    return new if len(rows) == len(values) else values.index_copy(0, rows, new)


class RecoveryProgram:
    """What all methods share; a method overrides ``phases`` and the functions they name.

    Args:
        problem: in the user's units.
        layout: how to shape the result.
        normalize: whether to work in units of mean square one.
        options: the method's settings, for provenance.
    """

    num_starts = 1
    phases: tuple[str, ...] = ()
    drop_below = 1e-6

    def __init__(
        self, problem: Problem, layout: Layout, options: dict[str, Any], *, normalize: bool = True
    ) -> None:
        self.original, self.layout, self.options = problem, layout, options
        ones = torch.ones(problem.num_problems, dtype=problem.real_dtype, device=problem.y.device)
        if normalize:
            self.problem, self._y_unit, self._units = problem.normalized()
        else:
            self.problem, self._y_unit = problem, ones
            self._units = [ones[:1]] * len(problem.factors)
        self.num_factors = len(problem.factors)
        self.learn = problem.noise is None
        self._silent = self.problem.power == 0  # x is zero there: nothing is to be computed

    def settings(self) -> dict[str, Any]:
        """For provenance and the identity of checkpoints."""
        return {"name": type(self).__name__, "sizes": self.problem.sizes, **self.options}

    # -- the capability that the engine asks for --------------------------------------------------

    def initialize(self, generator: torch.Generator) -> State:
        del generator  # every start is deterministic
        problem = self.problem
        b, device = problem.num_problems, problem.y.device
        real: dict[str, Any] = {"dtype": problem.real_dtype, "device": device}
        state = {
            "noise": self.first_noise(),
            "best_noise": self.first_noise(),
            "best_score": torch.full((b,), -math.inf, **real),
            "evidence": torch.where(self._silent, 0.0, torch.full((b,), -math.inf, **real)),
            "start": torch.zeros((), dtype=torch.long),
            "phase": torch.zeros((), dtype=torch.long),
            "finished": torch.zeros((), dtype=torch.bool),
        }
        for k, scale in enumerate(self.first_scales(0)):
            state[f"scale_{k}"] = scale
            state[f"best_scale_{k}"] = torch.zeros_like(scale)
        return self._enter(state)

    def sweep(self, state: State, generator: torch.Generator) -> tuple[State, StepInfo]:
        del generator
        rows = (~state["done"]).nonzero().squeeze(-1)
        name = self.phases[int(state["phase"])]
        new = {**state, **getattr(self, name)(state, rows)} if len(rows) else dict(state)
        new["count"] = new["count"] + 1
        # segments below zero are the program's own business: it says itself when it is finished
        segment = -1 - int(state["start"]) * len(self.phases) - int(state["phase"])
        objective = float(new["evidence"].sum())
        if bool(new["done"].all()):
            new = self._advance(new)
        finished = bool(new["finished"])
        return new, StepInfo(objective, converged=finished, segment=segment, message=name)

    def posterior(self, state: State) -> SparsePosterior:
        """In the user's units, from the best start so far or, before its end, the present state."""
        scales, noise = self._best(state)
        unit = self._y_unit.square()
        active = self.original.active(*self._in_user_units(scales, noise))
        found = active.condition()
        inclusion = self.inclusion(scales, noise)
        whole = scatter_grid(found.mean, active.scales, active.index, self.problem.sizes)
        return SparsePosterior(
            factors=active.factors,
            scales=active.scales,
            index=active.index,
            noise=noise * unit,
            mean_grid=whole,
            log_evidence=found.log_evidence,
            inclusion=inclusion,
            layout={
                "batch": list(self.layout.batch),
                "snapshots": self.layout.snapshots,
                "order": self.layout.order,
                "sizes": self.problem.sizes,
                "shape": list(self.layout.shape or self.problem.sizes),
                "rows": list(self.layout.rows or self.problem.y.shape[2:]),
            },
        )

    def diagnostics(self, state: State) -> dict[str, Any]:
        scales, noise = self._best(state)
        unit = self._y_unit.square()
        shape = self.layout.batch
        sizes = torch.stack([(g > 0).sum(-1) for g in scales], -1)
        user_noise = (noise * unit).reshape(shape)
        active = self.original.active(*self._in_user_units(scales, noise))
        evidence = active.condition().log_evidence.reshape(shape)
        found: dict[str, Any] = {
            "log_evidence": evidence.tolist(),
            "noise": user_noise.tolist(),
            "support_sizes": sizes.reshape(*shape, -1).tolist(),
            "hyperparameters": "point estimates by maximum evidence; intervals are given them",
        }
        rows, columns = zip(*(a.shape[1:] for a in self.problem.factors), strict=True)
        return found | support_findings(sizes, rows, columns)

    # -- what methods override --------------------------------------------------------------------

    def first_scales(self, start: int) -> list[Tensor]:
        """Starting scales, (B, N_k)."""
        del start
        b = self.problem.num_problems
        heard = (~self._silent).unsqueeze(-1)
        return [torch.where(heard, g.expand(b, -1), 0.0) for g in self.problem.equal_scales()]

    def first_noise(self) -> Tensor:
        if self.problem.noise is not None:
            return self.problem.noise
        return _NOISE_START * self._power()

    def score(self, scales: list[Tensor], noise: Tensor) -> Tensor:
        """By which starts are compared, (B): evidence less the price of the slices."""
        count = torch.stack([(g > 0).sum(-1) for g in scales]).sum(0)
        evidence = self.problem.active(scales, noise).condition().log_evidence
        return evidence - self.problem.penalty * count

    def inclusion(self, scales: list[Tensor], noise: Tensor) -> list[Tensor]:
        """Probability of every slice, (B, N_k): logistic in its worth less its price."""
        problem, penalty = self.problem, self.problem.penalty
        active = problem.active(scales, noise)
        rows = torch.arange(problem.num_problems, device=problem.y.device)
        found = []
        for k in range(self.num_factors):
            gain, _ = entry_worth(problem, active, k, rows)
            lost = drop_worth(active, k)
            # inf marks padding, and the last slice of a factor, without which there is no signal
            (here,) = scatter([lost.clamp(max=1e6)], [active.index[k]], [gain.shape[-1]])
            present = scales[k] > 0
            found.append(torch.where(present, here, gain).sub(penalty).sigmoid())
        empty = torch.stack([(g > 0).any(-1) for g in scales]).all(0)
        return [torch.where(empty.unsqueeze(-1), p, 0.0) for p in found]

    # -- machinery --------------------------------------------------------------------------------

    def noise_floor(self, noise: Tensor, rows: Tensor) -> Tensor:
        return torch.maximum(noise, NOISE_FLOOR * self._power()[rows])

    def prune(self, scales: list[Tensor], threshold: float) -> list[Tensor]:
        """Slices far below the largest of their factor become zero."""
        return [torch.where(g > threshold * g.amax(-1, keepdim=True), g, 0.0) for g in scales]

    def _power(self) -> Tensor:
        power = self.problem.power
        return torch.where(power > 0, power, 1.0)

    def _enter(self, state: State) -> State:
        """Counters at the door of a phase."""
        return {
            **state,
            "count": torch.zeros((), dtype=torch.long),
            "previous": torch.full_like(state["noise"], -math.inf),
            "done": self._silent.clone(),
            "changed": torch.zeros_like(self._silent),
        }

    def next_phase(self, state: State) -> int:
        """The phase after the present one; ``len(self.phases)`` ends the start."""
        return int(state["phase"]) + 1

    def _advance(self, state: State) -> State:
        phase = self.next_phase(state)
        if phase < len(self.phases):
            return self._enter({**state, "phase": torch.tensor(phase)})
        scales, noise = get_scales(state), state["noise"]
        score = self.score(scales, noise)
        better = score > state["best_score"]
        new = dict(state)
        for k, scale in enumerate(scales):
            old = state[f"best_scale_{k}"]
            new[f"best_scale_{k}"] = torch.where(better.unsqueeze(-1), scale, old)
        new["best_noise"] = torch.where(better, noise, state["best_noise"])
        new["best_score"] = torch.where(better, score, state["best_score"])
        start = int(state["start"]) + 1
        if start == self.num_starts:
            return self._compare_with_nothing({**new, "finished": torch.tensor(True)})
        for k, scale in enumerate(self.first_scales(start)):
            new[f"scale_{k}"] = scale
        new |= {"noise": self.first_noise(), "start": torch.tensor(start)}
        return self._enter({**new, "phase": torch.tensor(self.first_phase(start))})

    def first_phase(self, start: int) -> int:
        del start
        return 0

    def _compare_with_nothing(self, state: State) -> State:
        """Problems whose data are explained better by noise alone get no signal."""
        learned = self.problem.noise is None
        noise = self._power() if learned else state["best_noise"]
        nothing = self.problem.null_evidence(noise) >= state["best_score"]
        nothing = nothing | self._silent
        new = dict(state)
        for k in range(self.num_factors):
            scale = state[f"best_scale_{k}"]
            new[f"best_scale_{k}"] = torch.where(nothing.unsqueeze(-1), 0.0, scale)
        new["best_noise"] = torch.where(nothing, noise, state["best_noise"])
        return new

    def _best(self, state: State) -> tuple[list[Tensor], Tensor]:
        known = torch.isfinite(state["best_score"])
        best, now = get_scales(state, "best_scale"), get_scales(state)
        pairs = zip(best, now, strict=True)
        scales = [torch.where(known.unsqueeze(-1), b, n) for b, n in pairs]
        return scales, torch.where(known, state["best_noise"], state["noise"])

    def _in_user_units(self, scales: list[Tensor], noise: Tensor) -> tuple[list[Tensor], Tensor]:
        share = self._y_unit.pow(2 / self.num_factors).unsqueeze(-1)
        pairs = zip(scales, self._units, strict=True)
        user = [g * share / n.square().unsqueeze(-1) for g, n in pairs]
        return user, noise * self._y_unit.square()
