"""The whole fit as one sequence of sweeps: starts, ranks, settle, calibrate, refit.

1. Starts: every random start of every rank runs a few sweeps; the best of each rank by the
   objective goes on (the same model, so the bounds compare).
2. Ranks (several only): the winners run on; the two best by predictive score on held-out entries
   run on again, and the better one is taken. The bound itself penalises large cores too much to
   choose by (on air-quality data it prefers rank 3 where rank 5 predicts better); it decides where
   nothing is held out.
3. Eliminate (sums of components, CP, whose number means something): one component is taken out and
   the rest runs on until it settles; unless the held-out entries are then predicted worse by more
   than two standard errors and by more than sweeps are judged to, this is kept and the next one is
   tried. The weakest comes first, but all have their turn: the surplus one may be half of a strong
   component.
4. Settle: components without weight are dropped, then sweeps until the objective stops rising.
5. Calibrate: all of this ran without a random 1/8 of the entries; the factor that makes the 90 %
   interval cover 90 % of them is kept as ``calibration.spread``.
6. Refit: sweeps on all entries, started from step 4.

All of it is a function of one flat state, so a fit resumes from its checkpoint at any sweep.
Exploratory sweeps carry negative segment numbers, which stopping rules leave alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from probkit.infer import StepInfo
from probkit.tensor.entries import Entries
from probkit.tensor.posterior import TuckerPosterior, predictive_law, real_predictive
from probkit.tensor.rank import component_energy, shrink
from probkit.tensor.variational import TuckerVariational

__all__ = ["Program", "ProgramSettings"]

State = dict[str, Tensor]
_STARTS, _RANKS, _FINAL, _ELIMINATE, _SETTLE, _REFIT = range(6)
_COMPARISONS = (_STARTS, _RANKS, _FINAL)
_DEAD = 1e-6
_TRIAL, _SCORES, _TURN = "program.trial.", "program.scores", "program.turn"


@dataclass(frozen=True)
class ProgramSettings:
    """Knobs of the schedule.

    Args:
        candidates: ranks of each start.
        start_sweeps: sweeps of each random start.
        rank_sweeps: further sweeps of each rank's best start before ranks are compared.
        final_sweeps: further sweeps of the two best ranks before one is taken, and at most so many
            after a component was taken out.
        prune: whether to drop components without weight.
        eliminate: whether to take components out as long as predictions stay as good.
        holdout: share of entries kept back to choose ranks and calibrate intervals; 0 for none.
        tolerance: change of the objective per entry and sweep below which a stage is settled (a
            tenth of it while components are taken out), and loss of held-out log density per entry
            that no component is kept for.
        settle_sweeps: limit on the sweeps of a stage.
        learn_every: sweeps between two rounds of evidence steps.
    """

    candidates: tuple[tuple[int, ...], ...]
    start_sweeps: int = 8
    rank_sweeps: int = 24
    final_sweeps: int = 40
    prune: bool = False
    eliminate: bool = False
    holdout: float = 0.125
    tolerance: float = 1e-4
    settle_sweeps: int = 100
    learn_every: int = 3


class Program:
    """The schedule as a model with the ``Sweep`` capability.

    Args:
        problem: coordinate updates on all entries.
        settings: the schedule.
        posterior_spec: what the posterior needs besides the state (scalings, names, kernels).
    """

    def __init__(
        self,
        problem: TuckerVariational,
        settings: ProgramSettings,
        posterior_spec: dict[str, Any],
    ) -> None:
        self.problem, self._settings, self.posterior_spec = problem, settings, posterior_spec
        self._inner: TuckerVariational | None = None
        self._held: Tensor | None = None

    # -- the Sweep protocol --------------------------------------------------------------------

    def initialize(self, generator: torch.Generator) -> State:
        """All candidates' starting values and the counters of the schedule."""
        inner = self.problem
        count = self.problem.entries.num_entries
        state: State = {}
        if self._settings.holdout > 0:
            order = torch.randperm(count, generator=generator, device=generator.device)
            num_held = round(self._settings.holdout * count)
            state["program.held"] = torch.sort(order[:num_held])[0]
            inner = self._without(state["program.held"])
        for j, ranks in enumerate(self._settings.candidates):
            state |= {f"c{j}.{n}": v for n, v in inner.initial(ranks, generator).items()}
        number = len(self._settings.candidates)
        state["program.survivors"] = torch.arange(number)
        state["program.objectives"] = torch.full((number,), -math.inf, dtype=torch.float64)
        phase = _STARTS if number > 1 else _SETTLE
        if phase == _SETTLE:
            state = _promote(state, 0)
        counters = {"phase": phase, "position": 0, "sweeps": 0, "segment": -1}
        return state | {f"program.{n}": torch.tensor(v) for n, v in counters.items()}

    def sweep(self, state: State, generator: torch.Generator) -> tuple[State, StepInfo]:
        """One sweep of whatever the schedule is at."""
        phase = int(state["program.phase"])
        if phase in _COMPARISONS:
            return self._compare(state, phase)
        if phase == _ELIMINATE:
            return self._try_without(state)
        return self._settle(state, phase)

    def posterior(self, state: State) -> TuckerPosterior:
        """Posterior of the model the schedule has arrived at (the leader, during the race)."""
        if int(state["program.phase"]) in _COMPARISONS:
            leader = int(torch.argmax(state["program.objectives"]))
            state = _promote(state, leader)
        return TuckerPosterior(self.problem, state, self.posterior_spec)

    def settings(self) -> dict[str, Any]:
        """For provenance and the checkpoint's identity."""
        spec = {k: v for k, v in self.posterior_spec.items() if k != "grids"}
        return {**spec, "program": str(self._settings)}

    def diagnostics(self, state: State) -> dict[str, Any]:
        """Chosen ranks and the calibration factor."""
        if int(state["program.phase"]) in _COMPARISONS:
            return {"stage": "starts"}
        found: dict[str, Any] = {"ranks": state["ranks"].tolist()}
        if "calibration.spread" in state:
            found["interval_scale"] = float(state["calibration.spread"])
        return found

    # -- stages --------------------------------------------------------------------------------

    def _compare(self, state: State, phase: int) -> tuple[State, StepInfo]:
        """One sweep of the candidate whose turn it is; a decision after the last one's."""
        survivors = state["program.survivors"]
        position, sweeps = int(state["program.position"]), int(state["program.sweeps"])
        candidate = int(survivors[position])
        prefix = f"c{candidate}."
        own = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
        own, objective = self._problem(state).sweep(own, self._learns(sweeps))
        new = state | {f"{prefix}{n}": v for n, v in own.items()}
        new["program.objectives"] = state["program.objectives"].clone()
        new["program.objectives"][candidate] = objective
        info = self._info(state, objective, f"start {candidate} {tuple(own['ranks'].tolist())}")
        knobs = self._settings
        limit = (knobs.start_sweeps, knobs.rank_sweeps, knobs.final_sweeps)[phase]
        if sweeps + 1 < limit:
            return new | {"program.sweeps": torch.tensor(sweeps + 1)}, info
        if phase != _STARTS and "program.held" in state:
            new[f"program.score{candidate}"] = self._held_scores(own, state["program.held"])
        new["program.sweeps"] = torch.tensor(0)
        new["program.segment"] = state["program.segment"] - 1
        new["program.position"] = torch.tensor(position + 1)
        if position + 1 < len(survivors):
            return new, info
        return self._decide(new, phase), info

    def _decide(self, state: State, phase: int) -> State:
        """Keep the best start of each rank; once ranks have run on, keep one."""
        survivors, objectives = state["program.survivors"].tolist(), state["program.objectives"]
        if phase == _STARTS:
            best: dict[tuple[int, ...], int] = {}
            for j in survivors:
                ranks = self._settings.candidates[j]
                if ranks not in best or objectives[j] > objectives[best[ranks]]:
                    best[ranks] = j
            survivors = sorted(best.values())
        elif "program.held" in state:
            means = {j: float(state[f"program.score{j}"].mean()) for j in survivors}
            ordered = sorted(survivors, key=means.__getitem__, reverse=True)
            survivors = sorted(ordered[: 2 if phase == _RANKS else 1])
        else:
            ordered = sorted(survivors, key=lambda j: float(objectives[j]), reverse=True)
            survivors = sorted(ordered[: 2 if phase == _RANKS else 1])
        kept = tuple(f"c{j}." for j in survivors)
        new = {
            n: v
            for n, v in state.items()
            if n.startswith(("program.", *kept)) and not n.startswith("program.score")
        }
        new["program.survivors"] = torch.tensor(survivors)
        new["program.position"] = torch.tensor(0)
        if len(survivors) > 1:
            return self._enter(new, phase + 1)
        new = _promote(new, survivors[0])
        if self._settings.prune:
            new = self._with_body(new, _without_dead(self._problem(new), self._body(new)))
        if self._settings.eliminate and "program.held" in new:
            new[_SCORES] = self._held_scores(self._body(new), new["program.held"])
            return self._next_trial(new, 0)
        return self._enter(new, _SETTLE)

    def _try_without(self, state: State) -> tuple[State, StepInfo]:
        """One sweep of the model without a component; a decision after the last one."""
        sweeps = int(state["program.sweeps"])
        own = {n.removeprefix(_TRIAL): v for n, v in state.items() if n.startswith(_TRIAL)}
        own, objective = self._problem(state).sweep(own, self._learns(sweeps + 3))
        new = state | {f"{_TRIAL}{n}": v for n, v in own.items()}
        info = self._info(state, objective, f"without a component {tuple(own['ranks'].tolist())}")
        new["program.recent"] = self._recent(state, objective)
        # a tenth of the tolerance: what is left may rest before it takes over what was taken out
        settled = self._has_settled(new["program.recent"], self._settings.tolerance / 10)
        if not settled and sweeps + 1 < self._settings.final_sweeps:
            return new | {"program.sweeps": torch.tensor(sweeps + 1)}, info
        scores = self._held_scores(own, state["program.held"])
        if _clearly_better(state[_SCORES], scores, self._settings.tolerance):
            return self._next_trial(new, int(state[_TURN]) + 1), info
        new = self._with_body(_without_trial(new), own)
        return self._next_trial(new | {_SCORES: scores}, 0), info

    def _next_trial(self, state: State, turn: int) -> State:
        """Start to try without the component whose turn it is, the weakest first."""
        state, body = _without_trial(state), self._body(state)
        rank = int(body["ranks"][0])
        if rank == 1 or turn == rank:
            return self._enter(state, _SETTLE)
        problem = self._problem(state)
        component = int(torch.argsort(component_energy(problem, body, 0))[turn])
        trial = {f"{_TRIAL}{n}": v for n, v in shrink(problem, body, 0, component).items()}
        return self._enter(state, _ELIMINATE) | trial | {_TURN: torch.tensor(turn)}

    def _held_scores(self, body: State, held: Tensor) -> Tensor:
        """Log predictive density of each held-out entry."""
        subset = _subset(self.problem.entries, held)
        mean, variance = replace(self.problem, entries=subset).entry_moments(body)
        law = predictive_law(self.problem.likelihood, body, mean, variance)
        return law.log_prob(subset.targets)

    def _settle(self, state: State, phase: int) -> tuple[State, StepInfo]:
        sweeps = int(state["program.sweeps"])
        own, objective = self._problem(state).sweep(self._body(state), self._learns(sweeps + 3))
        new = self._with_body(state, own)
        info = self._info(state, objective, "fit")
        new["program.recent"] = self._recent(state, objective)
        new["program.sweeps"] = torch.tensor(sweeps + 1)
        settled = self._has_settled(new["program.recent"], self._settings.tolerance)
        if phase == _REFIT or "program.held" not in state:
            return new, replace(info, segment=1, converged=settled)
        if settled or sweeps + 1 >= self._settings.settle_sweeps:
            new = self._calibrate(new)
            new = self._enter(new, _REFIT)
        return new, info

    def _calibrate(self, state: State) -> State:
        """Interval factor on the held-out entries, then local posteriors for all entries."""
        problem, held = self.problem, state["program.held"]
        body = self._body(state)
        new = dict(state)
        subset = _subset(problem.entries, held)
        inner_view = replace(problem, entries=subset)
        mean, variance = inner_view.entry_moments(body)
        if problem.likelihood.continuous:
            predictive = real_predictive(problem.likelihood, body, mean, variance)
            new["calibration.spread"] = _spread(predictive, subset.targets)
        initial = problem.likelihood.initial(problem.entries.targets)
        local = {n: v for n, v in initial.items() if v.dim() == 1}
        body = {**body, **local}
        mean, variance = problem.entry_moments(body)
        local_state = problem.likelihood.update_local(
            body, problem.entries.targets, mean, variance, 1.0
        )
        return self._with_body(new, local_state)

    # -- helpers -------------------------------------------------------------------------------

    def _problem(self, state: State) -> TuckerVariational:
        """The updates on the entries of the present stage."""
        if int(state["program.phase"]) == _REFIT or "program.held" not in state:
            return self.problem
        return self._without(state["program.held"])

    def _without(self, held: Tensor) -> TuckerVariational:
        if self._inner is None or self._held is None or not torch.equal(self._held, held):
            keep = torch.ones(self.problem.entries.num_entries, dtype=torch.bool)
            keep[held] = False
            index = torch.nonzero(keep)[:, 0]
            self._inner = replace(self.problem, entries=_subset(self.problem.entries, index))
            self._held = held
        return self._inner

    def _recent(self, state: State, objective: Tensor) -> Tensor:
        """The stage's last objectives, one round of evidence steps among them."""
        before = state.get("program.recent", objective.new_zeros(0))
        return torch.cat([before, objective[None]])[-self._settings.learn_every - 1 :]

    def _has_settled(self, recent: Tensor, tolerance: float) -> bool:
        """Whether the objective's change per sweep and entry is below ``tolerance``."""
        if len(recent) <= self._settings.learn_every:
            return False
        change = float((recent[-1] - recent[0]).abs()) / (len(recent) - 1)
        return change < tolerance * self.problem.entries.num_entries

    def _learns(self, sweeps: int) -> bool:
        return sweeps >= 3 and sweeps % self._settings.learn_every == 0

    def _info(self, state: State, objective: Tensor, text: str) -> StepInfo:
        return StepInfo(float(objective), segment=int(state["program.segment"]), message=text)

    def _enter(self, state: State, phase: int) -> State:
        new = {n: v for n, v in state.items() if n != "program.recent"}
        new["program.phase"] = torch.tensor(phase)
        new["program.sweeps"] = torch.tensor(0)
        new["program.segment"] = state["program.segment"] - 1
        return new

    @staticmethod
    def _body(state: State) -> State:
        outside = ("program.", "calibration.")
        return {n: v for n, v in state.items() if not n.startswith(outside)}

    @staticmethod
    def _with_body(state: State, body: State) -> State:
        outside = ("program.", "calibration.")
        return {n: v for n, v in state.items() if n.startswith(outside)} | body


def _without_trial(state: State) -> State:
    return {n: v for n, v in state.items() if not n.startswith(_TRIAL)}


def _promote(state: State, candidate: int) -> State:
    """The winner's state without prefix; the others are dropped."""
    prefix = f"c{candidate}."
    own = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
    return {n: v for n, v in state.items() if n.startswith("program.")} | own


def _subset(entries: Entries, rows: Tensor) -> Entries:
    return Entries(entries.grids, [i[rows] for i in entries.index], entries.targets[rows])


def _without_dead(problem: TuckerVariational, state: State) -> State:
    """Drop components whose share of the squared weights is negligible."""
    k = 0
    while k < len(state["ranks"]):
        energy = component_energy(problem, state, k)
        component = int(torch.argmin(energy))
        if int(state["ranks"][k]) > 1 and float(energy[component]) < _DEAD:
            state = shrink(problem, state, k, component)
        else:
            k += 1
    return state


def _clearly_better(one: Tensor, other: Tensor, least: float) -> bool:
    """Whether the mean of paired scores is higher by more than ``least`` and two standard errors.

    Components are tried one after another: at one standard error, every sixth trial without a
    component that does nothing would look worse by chance and end the elimination. What does
    nothing changes all scores alike, and by little: hence also ``least``.
    """
    gain = one - other
    return float(gain.mean()) > max(2 * float(gain.std()) / math.sqrt(len(gain)), least)


def _spread(predictive: Any, targets: Tensor) -> Tensor:
    """Factor on the half-width that makes the central 90 % interval cover 90 % of ``targets``.

    The finite-sample rank ceil((n + 1) 0.9) of split conformal prediction (Lei et al. 2018).
    """
    half = predictive.quantile(0.95) - predictive.mean()
    ratio = torch.sort((targets - predictive.mean()).abs() / half)[0]
    rank = min(math.ceil((len(ratio) + 1) * 0.9), len(ratio))
    return ratio[rank - 1].clamp(0.25, 4.0)
