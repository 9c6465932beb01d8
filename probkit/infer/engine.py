"""What the engines share: from the arguments of ``fit`` to the loop and the record of the fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import torch

from probkit.infer.callbacks import Callback, Progress
from probkit.infer.checkpoint import Checkpoint, Checkpointer
from probkit.infer.loop import LoopOutcome, Recovery, Step, run_loop
from probkit.infer.protocols import State
from probkit.infer.provenance import provenance, settings_digest
from probkit.infer.stopping import StoppingRule
from probkit.random import Seed, as_generator
from probkit.validation import (
    require_choice,
    require_not_negative,
    require_positive,
    require_whole,
)

__all__ = [
    "Run",
    "model_settings",
    "require_choice",
    "require_not_negative",
    "require_positive",
    "require_whole",
]


@dataclass(frozen=True)
class Run:
    """One call of an engine's ``fit``, without the model's own step.

    Args:
        engine: name of the engine.
        settings: of engine and model.
        limits: settings that may differ when a checkpoint is resumed (a larger step limit is a
            legitimate reason to resume), so that they are no part of the fit's identity.
        seed, data, reason, checkpoint, resume, callbacks, progress: as in ``fit``.
        every: steps between two checkpoints.
    """

    engine: str
    settings: Mapping[str, Any]
    limits: tuple[str, ...]
    seed: Seed
    data: str
    reason: str
    checkpoint: str | Path | None
    resume: bool
    callbacks: Sequence[Callback]
    progress: bool
    every: int

    def loop(
        self,
        step: Step,
        initial: Callable[[torch.Generator], State],
        max_steps: int,
        *,
        stopping: StoppingRule | None = None,
        start: Checkpoint | None = None,
        generator: torch.Generator | None = None,
        recovery: Recovery | None = None,
    ) -> LoopOutcome:
        """Run the loop with this call's checkpoint and callbacks, and its seed or a generator."""
        shown = [Progress(self.engine, exact=stopping is None)] if self.progress else []
        return run_loop(
            step,
            initial,
            max_steps=max_steps,
            generator=as_generator(self.seed) if generator is None else generator,
            stopping=stopping,
            callbacks=[*self.callbacks, *shown],
            checkpointer=self.checkpointer(),
            resume=self.resume,
            start=start,
            recovery=recovery,
        )

    def record(self, state: State) -> dict[str, Any]:
        """Provenance; dtype and device are those of the state's first floating-point tensor."""
        tensors = [v for v in state.values() if v.is_floating_point()]
        return provenance(
            engine=self.engine,
            reason=self.reason,
            settings=self.settings,
            seed=self._number,
            dtype=tensors[0].dtype if tensors else torch.float64,
            device=tensors[0].device if tensors else torch.device("cpu"),
            data=self.data,
        )

    @property
    def _number(self) -> int | None:
        return int(self.seed) if isinstance(self.seed, int | Integral) else None

    def checkpointer(self) -> Checkpointer | None:
        """Where this call keeps its checkpoint, None for none."""
        if self.checkpoint is None:
            return None
        identity = {k: v for k, v in self.settings.items() if k not in self.limits}
        identity |= {"engine": self.engine, "seed": self._number}
        digest = settings_digest(identity, self.data)
        return Checkpointer(Path(self.checkpoint), digest, self.every)


def model_settings(model: object) -> Any:
    """What a model says of its own settings (``settings()``), for provenance and identity."""
    own = getattr(model, "settings", None)
    if callable(own):
        return own()
    return getattr(model, "__qualname__", type(model).__qualname__)
