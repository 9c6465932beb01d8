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

from probkit.errors import ConfigurationError, message
from probkit.infer.callbacks import Callback
from probkit.infer.checkpoint import Checkpoint
from probkit.infer.engine import Run, model_settings
from probkit.infer.protocols import Sweep
from probkit.infer.result import FitResult
from probkit.infer.stopping import RelativeChange
from probkit.random import Seed
from probkit.validation import require_positive, require_whole

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

    Example:
        >>> CAVI(max_sweeps=5).tolerance
        1e-06
    """

    max_sweeps: int = 2000
    tolerance: float = 1e-6
    patience: int = 2
    checkpoint_every: int = 5

    def __post_init__(self) -> None:
        require_whole(self, "max_sweeps", "patience", "checkpoint_every")
        require_positive(self, "tolerance")

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
            reason: why this engine was chosen, for provenance.
            checkpoint: directory for the checkpoint; None for none.
            resume: go on from that checkpoint if it exists.
            callbacks: called after every sweep.
            progress: show a progress bar.
        """
        run = Run(
            engine=type(self).__name__,
            settings={**asdict(self), "model": model_settings(model)},
            limits=("max_sweeps", "tolerance", "patience", "checkpoint_every"),
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

    def _run(self, model: Sweep, run: Run, start: Checkpoint | None) -> FitResult:
        outcome = run.loop(
            model.sweep,
            model.initialize,
            self.max_sweeps,
            stopping=RelativeChange(self.tolerance, self.patience),
            start=start,
        )

        def resume_with(**changes: Any) -> FitResult:
            engine = replace(self, **changes)
            settings = {**run.settings, **asdict(engine)}
            return engine._run(model, replace(run, settings=settings), outcome.checkpoint)

        own = getattr(model, "diagnostics", None)
        return FitResult(
            outcome.status,
            model.posterior(outcome.state),
            {name: np.asarray(column) for name, column in outcome.history.items()},
            {"num_sweeps": outcome.num_steps, **({} if own is None else own(outcome.state))},
            run.record(outcome.state),
            outcome.detail,
            resume_with,
            outcome.state,
        )


@dataclass(frozen=True)
class CVI(CAVI):
    """Conjugate-computation variational inference: sweeps with per-entry Gaussian messages.

    Args:
        damping: step size of the messages in natural parameters, in (0, 1].

    Example:
        >>> CVI(damping=0.5).max_sweeps
        2000
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
