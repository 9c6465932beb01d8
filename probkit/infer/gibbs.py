"""Gibbs sampling of models whose blocks have exact conditional draws.

One step of the loop moves every chain once, in sequence. Chains start from independent draws of
the model's ``initialize`` and share one stream of random numbers. Draws are part of the loop's
state, so that an interrupted run goes on bit by bit. Cost: ``num_chains * (num_warmup +
thinning * num_samples)`` transitions of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probkit.infer.callbacks import Callback
from probkit.infer.checkpoint import Checkpoint
from probkit.infer.engine import Run, model_settings
from probkit.infer.loop import Step
from probkit.infer.posterior import DrawsPosterior
from probkit.infer.protocols import GibbsModel, State, StepInfo
from probkit.infer.result import FitResult
from probkit.infer.sampling_diagnostics import mixing_diagnostics, mixing_status
from probkit.infer.status import Status
from probkit.random import Seed
from probkit.validation import require_whole

__all__ = ["Gibbs"]

_DRAWS = "draws."


@dataclass(frozen=True)
class Gibbs:
    """Gibbs sampler.

    A run that made all its draws ends as CONVERGED if every r_hat is at most 1.05 and as NOT_MIXED
    otherwise; ``result.resume(num_samples=...)`` goes on with more draws.

    Args:
        num_samples: kept draws of each chain.
        num_warmup: transitions of each chain before the first kept one.
        num_chains: chains from independent starts.
        thinning: transitions for each kept draw.
        checkpoint_every: steps (of all chains) between two checkpoints.

    Raises:
        ConfigurationError: a setting is not positive (warm-up may be 0).

    Example:
        >>> class Coin:
        ...     def initialize(self, generator):
        ...         return {"x": torch.zeros(())}
        ...
        ...     def gibbs_step(self, state, generator):
        ...         return {"x": torch.randn((), generator=generator)}
        ...
        ...     def draw(self, state):
        ...         return {"x": state["x"]}
        >>> result = Gibbs(num_samples=200, num_warmup=0).fit(Coin(), seed=0)
        >>> result.status.value, result.posterior.draws["x"].shape
        ('converged', torch.Size([2, 200]))
    """

    num_samples: int = 500
    num_warmup: int = 500
    num_chains: int = 2
    thinning: int = 1
    checkpoint_every: int = 50

    def __post_init__(self) -> None:
        require_whole(self, "num_samples", "num_chains", "thinning", "checkpoint_every")
        require_whole(self, "num_warmup", low=0)

    def fit(
        self,
        model: GibbsModel,
        *,
        seed: Seed = 0,
        data: str = "",
        reason: str = "asked for",
        checkpoint: str | Path | None = None,
        resume: bool = False,
        callbacks: Sequence[Callback] = (),
        progress: bool = False,
    ) -> FitResult:
        """Draw from the posterior.

        Args:
            model: anything with ``initialize``, ``gibbs_step`` and ``draw``.
            seed: of starts and transitions.
            data: digest of the data, for provenance and the checkpoint.
            reason: why this engine was chosen, for provenance.
            checkpoint: directory for the checkpoint; None for none.
            resume: go on from that checkpoint if it exists.
            callbacks: called after every step.
            progress: show a progress bar.
        """
        run = Run(
            engine="Gibbs",
            settings={**asdict(self), "model": model_settings(model)},
            limits=("num_samples", "checkpoint_every"),
            seed=seed,
            data=data,
            reason=reason,
            checkpoint=checkpoint,
            resume=resume,
            callbacks=callbacks,
            progress=progress,
            every=self.checkpoint_every,
        )
        return self._run(model, run, None)

    def _run(self, model: GibbsModel, run: Run, start: Checkpoint | None) -> FitResult:
        outcome = run.loop(
            self._step(model),
            lambda generator: self._initialize(model, generator),
            self.num_warmup + self.num_samples * self.thinning,
            start=start,
        )
        kept = min(int(outcome.state["num_draws"]), self.num_samples)
        draws = {
            name.removeprefix(_DRAWS): value[:, :kept]
            for name, value in outcome.state.items()
            if name.startswith(_DRAWS)
        }
        diagnostics = mixing_diagnostics(draws)
        complete = outcome.status is Status.MAX_STEPS

        def resume_with(**changes: Any) -> FitResult:
            engine = replace(self, **changes)
            settings = {**run.settings, **asdict(engine)}
            return engine._run(model, replace(run, settings=settings), outcome.checkpoint)

        return FitResult(
            mixing_status(diagnostics) if complete else outcome.status,
            DrawsPosterior(draws),
            {name: np.asarray(column) for name, column in outcome.history.items()},
            diagnostics,
            run.record(outcome.state),
            outcome.detail,
            resume_with,
            outcome.state,
        )

    def _initialize(self, model: GibbsModel, generator: torch.Generator) -> State:
        chains = [model.initialize(generator) for _ in range(self.num_chains)]
        state = _join(chains)
        for name, value in model.draw(chains[0]).items():
            shape = (self.num_chains, self.num_samples, *value.shape)
            state[_DRAWS + name] = value.new_zeros(shape)
        state["num_draws"], state["num_steps"] = torch.tensor(0), torch.tensor(0)
        return state

    def _step(self, model: GibbsModel) -> Step:
        """One transition of every chain, and a draw of each where one is due.

        Draws are written into the slot after the last kept one, in place: a step that is
        interrupted and repeated writes the same slot again, and kept draws are never touched.
        """

        def step(state: State, generator: torch.Generator) -> tuple[State, StepInfo]:
            chains = [model.gibbs_step(_chain(state, c), generator) for c in range(self.num_chains)]
            store = {
                name: _with_room(value, self.num_samples)
                for name, value in state.items()
                if name.startswith(_DRAWS)
            }
            count, number = int(state["num_draws"]), int(state["num_steps"]) + 1
            past = number - self.num_warmup
            finite = True
            if past > 0 and past % self.thinning == 0:
                for index, chain in enumerate(chains):
                    for name, value in model.draw(chain).items():
                        store[_DRAWS + name][index, count] = value
                        finite = finite and bool(torch.isfinite(value).all())
                count += 1
            counters = {"num_draws": torch.tensor(count), "num_steps": torch.tensor(number)}
            objective = _mean_log_joint(model, chains) if finite else float("nan")
            return {**_join(chains), **store, **counters}, StepInfo(objective=objective)

        return step


def _join(chains: list[State]) -> State:
    return {f"chain{c}.{name}": v for c, chain in enumerate(chains) for name, v in chain.items()}


def _chain(state: State, index: int) -> State:
    prefix = f"chain{index}."
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _with_room(draws: Tensor, num_samples: int) -> Tensor:
    """Enlarge the store when a run goes on with more draws than it began with."""
    missing = num_samples - draws.shape[1]
    if missing <= 0:
        return draws
    room = draws.new_zeros((draws.shape[0], missing, *draws.shape[2:]))
    return torch.cat([draws, room], dim=1)


def _mean_log_joint(model: GibbsModel, chains: list[State]) -> float:
    """Average over chains of the model's log joint density; 0 if the model does not offer it."""
    own = getattr(model, "log_joint", None)
    if own is None:
        return 0.0
    return sum(float(own(chain)) for chain in chains) / len(chains)
