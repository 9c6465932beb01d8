"""What engines ask of models: small capabilities, declared as protocols.

The state of every iterative algorithm is a flat dictionary of tensors (counters and flags too).
That is what is checkpointed, restored bit by bit and returned, so an algorithm written as a pure
function of its state can be interrupted and resumed anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

__all__ = [
    "EngineLike",
    "GibbsModel",
    "PosteriorLike",
    "State",
    "StepInfo",
    "Sweep",
    "WeighsItself",
]

State = dict[str, Tensor]


@dataclass(frozen=True)
class StepInfo:
    """What a step reports to the loop.

    Args:
        objective: to be maximised (an ELBO, a log posterior).
        converged: the model's own word that its schedule is finished.
        segment: changes when the objective starts anew (another start, another rank) and never
            returns to an earlier value; stopping rules look at one segment only.
        metrics: further figures for the history.
        message: a few words for the progress display.
        objectives: of all steps that one call of the step function made, if it made several; the
            last one is ``objective``.
    """

    objective: float
    converged: bool = False
    segment: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    message: str = ""
    objectives: Sequence[float] = ()


@runtime_checkable
class PosteriorLike(Protocol):
    """A posterior by site name: moments, quantiles and draws."""

    def mean(self) -> dict[str, Tensor]: ...

    def sd(self) -> dict[str, Tensor]: ...

    def quantile(self, q: float | Sequence[float]) -> dict[str, Tensor]: ...

    def sample(self, num_samples: int, generator: torch.Generator) -> dict[str, Tensor]: ...

    def spec(self) -> dict[str, Any]: ...

    def tensors(self) -> State: ...


@runtime_checkable
class WeighsItself(Protocol):
    """A guide that knows the importance weights of its draws, and what of them to show."""

    def weighted_draws(self, num_samples: int) -> tuple[dict[str, Tensor], Tensor]:
        """Draws (num_samples, *event) by name, and log p - log q of each, (num_samples,)."""
        ...


@runtime_checkable
class Sweep(Protocol):
    """A structured model fitted by repeated exact updates (EM, CAVI, message passing)."""

    def initialize(self, generator: torch.Generator) -> State: ...

    def sweep(self, state: State, generator: torch.Generator) -> tuple[State, StepInfo]: ...

    def posterior(self, state: State) -> PosteriorLike: ...


@runtime_checkable
class GibbsModel(Protocol):
    """A model whose blocks have exact conditional draws.

    ``draw`` picks the sites to keep from a state. A model may also offer ``log_joint(state)``, the
    log density of data and unknowns, which is then recorded as the objective.
    """

    def initialize(self, generator: torch.Generator) -> State: ...

    def gibbs_step(self, state: State, generator: torch.Generator) -> State: ...

    def draw(self, state: State) -> dict[str, Tensor]: ...


@runtime_checkable
class EngineLike(Protocol):
    """An engine of the user's own, as ``probkit.fit`` calls it; ``probkit.testing`` checks one.

    ``fit`` takes the model and its data, and by keyword ``seed``, ``reason`` (why this engine was
    chosen), ``checkpoint``, ``resume``, ``callbacks`` and ``progress``; it returns a ``FitResult``.
    """

    def fit(self, model: Any, data: Any = None, **options: Any) -> Any: ...
