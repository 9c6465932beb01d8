"""The state and the steps of many-chain Hamiltonian Monte Carlo.

A step of the loop is a block of trajectories. In the warm-up every trajectory adapts step size and
length (``tuning``); at four points, ever further apart, the metric is set from the draws since
the last one (``metric``). Trajectories are kept short until the metric has been set twice:
before that, their length in units of the posterior sd is unknown.

A chain that accepted nothing between two of those points, or after the last, is stuck where the
posterior is far narrower than the step (a bad starting point), and the mean acceptance never helps
it. It is moved to the place of a random chain that did move, and the result says so.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from probkit.infer.metric import empty_moments, factor_of, join_moments, whiten
from probkit.infer.potential import Potential
from probkit.infer.protocols import State, StepInfo
from probkit.infer.trajectories import Block, Chains, Noise, Trajectories
from probkit.infer.tuning import Tuning, duration, length_gradient

__all__ = ["BLOCK", "ManyChains"]

BLOCK = 25
"""trajectories in a step of the loop"""

_METRIC_UPDATES = (0.15, 0.3, 0.5, 0.75)
_SHORT = 16
_LEAST_ACCEPTANCE = 0.1
_FIRST_STEP, _MAX_DOUBLINGS = 0.1, 40


class ManyChains:
    """Sampler of a potential.

    Args:
        potential: what is sampled.
        trajectories: runs a block of it, eagerly or natively.
        num_chains, num_warmup, num_samples: chains, and trajectories of each.
        target_accept: acceptance rate that the step size is adapted to.
        max_leapfrogs: limit on the steps of a trajectory.
        dense: a dense metric.
    """

    def __init__(
        self,
        potential: Potential,
        trajectories: Trajectories,
        *,
        num_chains: int,
        num_warmup: int,
        num_samples: int,
        target_accept: float,
        max_leapfrogs: int,
        dense: bool,
    ) -> None:
        self._potential, self._trajectories = potential, trajectories
        self._chains, self._warmup, self._samples = num_chains, num_warmup, num_samples
        self._target, self._longest, self._dense = target_accept, max_leapfrogs, dense
        self._updates = [max(2, round(share * num_warmup)) for share in _METRIC_UPDATES]

    @property
    def num_steps(self) -> int:
        """Steps of the loop: blocks of the warm-up and of the draws."""
        return math.ceil(self._warmup / BLOCK) + math.ceil(self._samples / BLOCK)

    def initial(self, generator: torch.Generator) -> State:
        """Starting points, a first step size, and empty stores."""
        position = self._potential.initial(self._chains, generator)
        chains = Chains(position, *self._potential.value_and_gradient(position))
        factor = torch.ones_like(position[0])
        factor = torch.diag(factor) if self._dense else factor
        step = self._first_step(chains, factor, self._noise(1, generator))
        return {
            **chains._asdict(),
            "factor": factor,
            "tuning": Tuning.start(step).tensor(),
            **empty_moments(self._potential.size, self._dense, position),
            "moved": torch.zeros(self._chains, dtype=torch.bool, device=position.device),
            "restarts": torch.zeros(self._chains, dtype=torch.long, device=position.device),
            "num_trajectories": torch.tensor(0),
            "num_leapfrogs": torch.tensor(0),
            "draws": position.new_zeros(self._chains, 0, self._potential.size),
            "energies": position.new_zeros(self._chains, 0),
            "errors": position.new_zeros(self._chains, 0),
        }

    def step(self, state: State, generator: torch.Generator) -> tuple[State, StepInfo]:
        """One block; the objective is the mean log joint density (unconstrained) at its end."""
        done = int(state["num_trajectories"])
        if done < self._warmup:
            new, acceptance = self._adapt(state, min(BLOCK, self._warmup - done), generator)
        else:
            new, acceptance = self._draw(state, generator)
        metrics = {"acceptance": acceptance, "step_size": Tuning(*new["tuning"].tolist()).step}
        objective = -float(new["value"].mean())
        return new, StepInfo(
            objective=objective, segment=int(done >= self._warmup), metrics=metrics
        )

    def _adapt(self, state: State, count: int, generator: torch.Generator) -> tuple[State, float]:
        """Trajectories of the warm-up, one at a time."""
        state = dict(state)
        first = int(state["num_trajectories"])
        tuning = Tuning(*state["tuning"].tolist())
        rates, leapfrogs = [], 0
        for number in range(first, first + count):
            limit = _SHORT if number < self._updates[1] else self._longest
            length = self._leapfrogs(tuning, number, limit)
            block = self._run(state, tuning, [length], self._noise(1, generator))
            leapfrogs += length
            acceptance = (-block.errors[0]).exp().clamp(max=1)
            searching = number < self._updates[0]
            rates.append(_rate(acceptance, searching))
            tuning = tuning.accept(rates[-1], target=self._target)
            if number >= self._updates[1]:
                tuning = self._lengthen(tuning, state, block, acceptance, length)
            state["moved"] = state["moved"] | (block.draws[0] != state["position"]).any(1)
            state |= block.chains._asdict()
            state |= join_moments(state, block.draws[0])
            if number + 1 in (*self._updates, self._warmup):
                state |= _restarted(state, generator)
            if number + 1 in self._updates:
                state["factor"] = factor_of(state)
                like = state["position"]
                state |= empty_moments(self._potential.size, self._dense, like)
                tuning = tuning.restart()
        if first + count == self._warmup:
            tuning = tuning.settle()
        return self._count(state, tuning, count, leapfrogs), sum(rates) / count

    def _draw(self, state: State, generator: torch.Generator) -> tuple[State, float]:
        """A block of kept trajectories."""
        first = int(state["num_trajectories"])
        tuning = Tuning(*state["tuning"].tolist())
        numbers = range(first, first + BLOCK)
        lengths = [self._leapfrogs(tuning, number, self._longest) for number in numbers]
        block = self._run(state, tuning, lengths, self._noise(BLOCK, generator))
        kept = {"draws": block.draws, "energies": block.energies, "errors": block.errors}
        at = first - self._warmup
        new = {**state, **block.chains._asdict()}
        for name, value in kept.items():
            new[name] = _with_room(state[name], at, max(self._samples, at + BLOCK))
            new[name][:, at : at + BLOCK] = value.transpose(0, 1)
        rate = float((-block.errors).exp().clamp(max=1).mean())
        return self._count(new, tuning, BLOCK, sum(lengths)), rate

    def _run(self, state: State, tuning: Tuning, lengths: list[int], noise: Noise) -> Block:
        chains = Chains(state["position"], state["value"], state["gradient"])
        return self._trajectories(chains, tuning.step, state["factor"], lengths, noise)

    def _leapfrogs(self, tuning: Tuning, number: int, limit: int) -> int:
        steps = duration(tuning.length, number) / tuning.step
        return max(1, min(limit, round(min(steps, limit))))

    def _lengthen(
        self, tuning: Tuning, state: State, block: Block, acceptance: Tensor, length: int
    ) -> Tuning:
        before = whiten(state["factor"], state["position"])
        after = whiten(state["factor"], block.proposals[0])
        time = length * tuning.step
        return tuning.lengthen(length_gradient(time, before, after, block.ends[0], acceptance))

    def _count(self, state: State, tuning: Tuning, count: int, leapfrogs: int) -> State:
        return {
            **state,
            "tuning": tuning.tensor(),
            "num_trajectories": state["num_trajectories"] + count,
            "num_leapfrogs": state["num_leapfrogs"] + leapfrogs,
        }

    def _noise(self, count: int, generator: torch.Generator) -> Noise:
        potential, device = self._potential, generator.device
        kind = {"dtype": potential.dtype, "generator": generator, "device": device}
        momenta = torch.randn(count, self._chains, potential.size, **kind)
        uniforms = torch.rand(count, self._chains, **kind)
        return Noise(momenta.to(potential.device), uniforms.log().to(potential.device))

    def _first_step(self, chains: Chains, factor: Tensor, noise: Noise) -> float:
        """Doubled or halved until the acceptance of one leapfrog step crosses one half."""
        step, direction = _FIRST_STEP, 0
        for _ in range(_MAX_DOUBLINGS):
            block = self._trajectories(chains, step, factor, [1], noise)
            rate = float((-block.errors).exp().clamp(max=1).mean())
            wanted = 1 if rate > 0.5 else -1
            if direction == -wanted:
                break
            direction = wanted
            step *= 2.0**direction
        return step


def _rate(acceptance: Tensor, searching: bool) -> float:
    """Mean over chains; harmonic while chains still search, so that the stuck ones decide."""
    if searching:
        return float(1 / (1 / acceptance.clamp(min=_LEAST_ACCEPTANCE)).mean())
    return float(acceptance.mean())


def _restarted(state: State, generator: torch.Generator) -> State:
    """Chains that never moved since the last call, at the places of chains that did."""
    moved = state["moved"]
    new = {"moved": torch.zeros_like(moved)}
    if bool(moved.all()) or not bool(moved.any()):
        return new
    healthy, stuck = moved.nonzero()[:, 0], (~moved).nonzero()[:, 0]
    pick = torch.randint(len(healthy), stuck.shape, generator=generator, device=generator.device)
    source = healthy[pick.to(healthy.device)]
    for name in ("position", "value", "gradient"):
        new[name] = state[name].clone()
        new[name][stuck] = state[name][source]
    new["restarts"] = state["restarts"] + ~moved
    return new


def _with_room(store: Tensor, used: int, size: int) -> Tensor:
    """The store itself if it is large enough, else a larger one with the draws so far.

    Draws are written in place after the last kept one: a step that is repeated writes the same
    values into the same place.
    """
    if store.shape[1] >= size:
        return store
    room = store.new_zeros(store.shape[0], size, *store.shape[2:])
    room[:, :used] = store[:, :used]
    return room
