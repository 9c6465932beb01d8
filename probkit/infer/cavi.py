"""Coordinate ascent for structured models: ``CAVI``, and ``CVI`` for non-conjugate ones.

Both drive a model's own sweeps through the loop; they know nothing of what a sweep does. A model
with a schedule of its own (several starts, a search over ranks) reports segments and says when it
is finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from probkit.errors import ConfigurationError, message
from probkit.infer.callbacks import Callback, Progress
from probkit.infer.checkpoint import Checkpointer
from probkit.infer.loop import LoopOutcome, run_loop
from probkit.infer.protocols import Sweep
from probkit.infer.provenance import provenance, settings_digest
from probkit.infer.result import FitResult
from probkit.infer.stopping import RelativeChange
from probkit.random import Seed, as_generator

__all__ = ["CAVI", "CVI"]


@dataclass(frozen=True)
class CAVI:
    """Coordinate-ascent variational inference: exact updates, an objective that never falls.

    Args:
        max_sweeps: limit on the total number of sweeps.
        tolerance: relative change of the objective below which a sweep counts as converged.
        patience: number of such sweeps in a row.
        checkpoint_every: sweeps between two checkpoints.

    Raises:
        ConfigurationError: a non-positive limit, tolerance or patience.
    """

    max_sweeps: int = 500
    tolerance: float = 1e-6
    patience: int = 2
    checkpoint_every: int = 5

    def __post_init__(self) -> None:
        for name in ("max_sweeps", "tolerance", "patience", "checkpoint_every"):
            value = getattr(self, name)
            if not value > 0:
                raise ConfigurationError(
                    message("A setting must be positive", where=name, got=value, expected="> 0")
                )

    def fit(
        self,
        model: Sweep,
        *,
        seed: Seed = 0,
        data: str = "",
        reason: str = "asked for",
        checkpoint: str | Path | None = None,
        resume: bool = False,
        callbacks: Sequence[Callback] = (),
        progress: bool = False,
    ) -> FitResult:
        """Run the model's sweeps until they converge.

        Args:
            model: anything with ``initialize``, ``sweep`` and ``posterior``.
            seed: of the starting values.
            data: digest of the data, for provenance and the checkpoint.
            checkpoint: directory for the checkpoint; None for none.
            resume: go on from that checkpoint if it exists.
        """
        settings = {**asdict(self), "model": getattr(model, "settings", dict)()}
        # a longer limit is a legitimate reason to resume, so it is no part of the identity
        identity = {k: v for k, v in settings.items() if k not in ("max_sweeps", "tolerance")}
        number = seed if isinstance(seed, int) else None
        checkpointer = None
        if checkpoint is not None:
            digest = settings_digest({**identity, "seed": number}, data)
            checkpointer = Checkpointer(Path(checkpoint), digest, self.checkpoint_every)
        outcome = run_loop(
            model.sweep,
            model.initialize,
            max_steps=self.max_sweeps,
            generator=as_generator(seed),
            stopping=RelativeChange(self.tolerance, self.patience),
            callbacks=[*callbacks, *([Progress(type(self).__name__)] if progress else [])],
            checkpointer=checkpointer,
            resume=resume,
        )
        record = provenance(
            engine=type(self).__name__,
            reason=reason,
            settings=settings,
            seed=number,
            dtype=_floating(outcome),
            device=_device(outcome),
            data=data,
        )
        return self._result(model, outcome, record)

    def _result(self, model: Sweep, outcome: LoopOutcome, record: dict[str, Any]) -> FitResult:
        def resume_with(**changes: Any) -> FitResult:
            engine = replace(self, **changes)
            return engine._go_on(model, outcome, record)

        diagnostics = {"num_sweeps": outcome.num_steps, **_model_diagnostics(model, outcome)}
        history = {name: np.asarray(column) for name, column in outcome.history.items()}
        return FitResult(
            outcome.status,
            model.posterior(outcome.state),
            history,
            diagnostics,
            record,
            outcome.detail,
            resume_with,
        )

    def _go_on(self, model: Sweep, outcome: LoopOutcome, record: dict[str, Any]) -> FitResult:
        further = run_loop(
            model.sweep,
            lambda generator: outcome.state,
            max_steps=max(self.max_sweeps - outcome.num_steps, 0),
            generator=as_generator(record["seed"]),
            stopping=RelativeChange(self.tolerance, self.patience),
        )
        history = {
            name: outcome.history.get(name, []) + further.history[name] for name in further.history
        }
        joined = LoopOutcome(
            further.state,
            further.status,
            history,
            outcome.num_steps + further.num_steps,
            further.detail,
        )
        return self._result(model, joined, record)


@dataclass(frozen=True)
class CVI(CAVI):
    """Conjugate-computation variational inference: sweeps with per-entry Gaussian messages.

    Args:
        damping: step size of the messages in natural parameters, in (0, 1].
    """

    damping: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.damping > 1:
            raise ConfigurationError(
                message(
                    "Damping is a step size", where="damping", got=self.damping, expected="<= 1"
                )
            )


def _model_diagnostics(model: Sweep, outcome: LoopOutcome) -> dict[str, Any]:
    own = getattr(model, "diagnostics", None)
    return {} if own is None else dict(own(outcome.state))


def _floating(outcome: LoopOutcome) -> torch.dtype:
    kinds = [v.dtype for v in outcome.state.values() if v.is_floating_point()]
    return kinds[0] if kinds else torch.float64


def _device(outcome: LoopOutcome) -> torch.device:
    return next((v.device for v in outcome.state.values()), torch.device("cpu"))
