"""Expectation-maximisation for models that offer both steps.

    E: moments = E[sufficient statistics | x, theta],   M: theta = argmax E[log p(x, z | theta)]

The objective, the log evidence of theta before the step (plus the log prior of theta, where the
model has one), never falls; a fall beyond rounding is counted and reported, because it means that
a step of the model is wrong. Source: Dempster, Laird & Rubin, JRSS B 39 (1977).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from probkit.infer.callbacks import Callback
from probkit.infer.checkpoint import Checkpoint
from probkit.infer.engine import Run, model_settings
from probkit.infer.loop import Step
from probkit.infer.protocols import PosteriorLike, State, StepInfo
from probkit.infer.result import FitResult
from probkit.infer.stopping import RelativeChange
from probkit.random import Seed
from probkit.validation import require_positive, require_whole

__all__ = ["EM", "ExpectationMaximization"]

_ROUNDING = 1e-8


@runtime_checkable
class ExpectationMaximization(Protocol):
    """A model with an E-step and an M-step.

    ``e_step(state)`` returns the moments that the M-step needs and the log evidence of the state's
    parameters; ``m_step(state, moments)`` returns the next state.
    """

    def initialize(self, generator: torch.Generator) -> State: ...

    def e_step(self, state: State) -> tuple[State, float]: ...

    def m_step(self, state: State, moments: State) -> State: ...

    def posterior(self, state: State) -> PosteriorLike: ...


@dataclass(frozen=True)
class EM:
    """Expectation-maximisation, or any majorise-minimise algorithm in its form.

    Args:
        max_steps: limit on the number of steps.
        tolerance: relative change of the log evidence below which a step counts as converged.
        patience: number of such steps in a row.
        checkpoint_every: steps between two checkpoints.

    Raises:
        ConfigurationError: a setting is not positive.

    Example:
        >>> from probkit.infer import DrawsPosterior
        >>> class Scale:  # y = z + noise, z ~ N(0, scale), unit noise
        ...     y2 = torch.tensor(4.0, dtype=torch.float64)
        ...
        ...     def initialize(self, generator):
        ...         return {"scale": torch.ones((), dtype=torch.float64)}
        ...
        ...     def e_step(self, state):
        ...         gain = state["scale"] / (1 + state["scale"])
        ...         evidence = -((1 + state["scale"]).log() + self.y2 / (1 + state["scale"])) / 2
        ...         return {"second": gain**2 * self.y2 + gain}, float(evidence)
        ...
        ...     def m_step(self, state, moments):
        ...         return {"scale": moments["second"]}
        ...
        ...     def posterior(self, state):
        ...         return DrawsPosterior({"scale": state["scale"].reshape(1, 1)})
        >>> result = EM(tolerance=1e-12).fit(Scale())
        >>> round(float(result.state["scale"]), 3), result.diagnostics["num_falls"]  # y^2 - 1
        (3.0, 0)
    """

    max_steps: int = 1000
    tolerance: float = 1e-6
    patience: int = 2
    checkpoint_every: int = 20

    def __post_init__(self) -> None:
        require_whole(self, "max_steps", "patience", "checkpoint_every")
        require_positive(self, "tolerance")

    def fit(
        self,
        model: ExpectationMaximization,
        *,
        seed: Seed = 0,
        data: str = "",
        reason: str = "asked for",
        checkpoint: str | Path | None = None,
        resume: bool = False,
        callbacks: Sequence[Callback] = (),
        progress: bool = False,
    ) -> FitResult:
        """Alternate E- and M-steps until the log evidence settles.

        Args:
            model: anything with ``initialize``, ``e_step``, ``m_step`` and ``posterior``.
            seed: of the starting values.
            data: digest of the data, for provenance and the checkpoint.
            reason: why this engine was chosen, for provenance.
            checkpoint: directory for the checkpoint; None for none.
            resume: go on from that checkpoint if it exists.
            callbacks: called after every step.
            progress: show a progress bar.

        Returns:
            A result with the model's posterior. Diagnostics: ``log_evidence``, ``num_steps``,
            ``num_falls`` (steps after which the log evidence fell), ``warnings``.
        """
        run = Run(
            engine="EM",
            settings={**asdict(self), "model": model_settings(model)},
            limits=("max_steps", "tolerance", "patience", "checkpoint_every"),
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

    def _run(self, model: ExpectationMaximization, run: Run, start: Checkpoint | None) -> FitResult:
        outcome = run.loop(
            _step(model),
            model.initialize,
            self.max_steps,
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
            {
                **_ascent(outcome.history["objective"]),
                "num_steps": outcome.num_steps,
                **({} if own is None else own(outcome.state)),
            },
            run.record(outcome.state),
            outcome.detail,
            resume_with,
            outcome.state,
        )


def _step(model: ExpectationMaximization) -> Step:
    def step(state: State, generator: torch.Generator) -> tuple[State, StepInfo]:
        moments, evidence = model.e_step(state)
        return model.m_step(state, moments), StepInfo(objective=evidence)

    return step


def _ascent(objective: Sequence[float]) -> dict[str, Any]:
    """The last log evidence, and how often it fell by more than rounding."""
    falls = sum(b < a - _ROUNDING * (1 + abs(a)) for a, b in pairwise(objective))
    found: dict[str, Any] = {
        "log_evidence": objective[-1] if objective else float("nan"),
        "num_falls": falls,
    }
    if falls:
        text = (
            f"The log evidence fell after {falls} steps: an E- or M-step does not maximise what it "
            "should, or the arithmetic is not exact enough."
        )
        found["warnings"] = [text]
    return found
