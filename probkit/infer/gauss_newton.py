"""Nonlinear least squares by Gauss–Newton steps with Levenberg–Marquardt damping.

Minimises U(z) = r(z)'r(z) / 2, residuals being whitened (a Gaussian prior is a residual too):

    (J'J + t I) d = -J'r,    gain = (U(z) - U(z + d)) / (-g'd / 2 + t d'd / 2)

A step is taken if it lowers U; t falls after good steps and rises after refused ones. The search
ends when the Gauss–Newton decrement sqrt(g' (J'J)^-1 g), the distance to the minimum in posterior
standard deviations, is below the tolerance, or where U falls by no more than rounding. Around the
minimum the posterior is N(z, (J'J)^-1), exact where r is linear.

Sources: Levenberg 1944; Marquardt 1963; Nielsen, IMM-REP-1999-05 (the damping's schedule).
Cost of a step: one linearisation and one solve in the model's own structure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import NotPositiveDefiniteError
from probkit.infer.callbacks import Callback
from probkit.infer.checkpoint import Checkpoint
from probkit.infer.engine import Run, model_settings
from probkit.infer.gaussian_at_mode import Precision, solve_precision
from probkit.infer.laplace import gaussian_result
from probkit.infer.protocols import State, StepInfo
from probkit.infer.result import FitResult
from probkit.infer.stopping import Stalled
from probkit.random import Seed
from probkit.validation import require_positive, require_whole

__all__ = ["GaussNewton", "LeastSquares", "Linearization", "dense_linearization"]

_FIRST_DAMPING, _LEAST_DAMPING, _GREATEST_DAMPING = 1e-4, 1e-14, 1e14
_AT_ROUNDING = 1e-3


class Linearization(NamedTuple):
    """Residuals at a point and what a damped step needs.

    ``normal(damping)`` is J'J + damping I, dense or an operator with ``solve``, ``logdet`` and
    ``inverse_mvn_samples``.
    """

    residual: Float[Tensor, " rows"]
    gradient: Float[Tensor, " size"]
    normal: Callable[[float], Precision]


@runtime_checkable
class LeastSquares(Protocol):
    """A model whose negative log posterior is half the squared norm of its residuals.

    It may also offer ``sites(flat (draw, size)) -> dict`` to name its unknowns.
    """

    def initialize(self, generator: torch.Generator) -> Float[Tensor, " size"]: ...

    def residual(self, flat: Float[Tensor, " size"]) -> Float[Tensor, " rows"]: ...

    def linearize(self, flat: Float[Tensor, " size"]) -> Linearization: ...


def dense_linearization(
    residual: Callable[[Tensor], Tensor], flat: Float[Tensor, " size"]
) -> Linearization:
    """The linearisation of a function of tensors, by automatic differentiation.

    Example:
        >>> found = dense_linearization(lambda z: z**2 - 2, torch.tensor([1.0, 2.0]))
        >>> found.gradient.tolist(), found.normal(0.0).tolist()
        ([-2.0, 8.0], [[4.0, 0.0], [0.0, 16.0]])
    """
    value = residual(flat)
    jacobian: Tensor = torch.autograd.functional.jacobian(residual, flat, vectorize=True)
    product = jacobian.mT @ jacobian
    identity = torch.eye(len(flat), dtype=flat.dtype, device=flat.device)
    return Linearization(value, jacobian.mT @ value, lambda damping: product + damping * identity)


@dataclass(frozen=True)
class GaussNewton:
    """Damped Gauss–Newton.

    Args:
        max_steps: limit on the steps, refused ones included.
        tolerance: distance to the minimum, in posterior standard deviations, that ends the search.
        num_posterior_samples: draws of the Gaussian at the minimum.
        num_diagnostic_samples: draws for k-hat; 0 for none.
        checkpoint_every: steps between two checkpoints.

    Raises:
        ConfigurationError: a setting out of its range.

    Example:
        >>> class Decay:  # y = exp(-z t), noise sd .1
        ...     t = torch.linspace(0, 2, 20, dtype=torch.float64)
        ...
        ...     def initialize(self, generator):
        ...         return torch.zeros(1, dtype=torch.float64)
        ...
        ...     def residual(self, z):
        ...         return ((-z * self.t).exp() - (-0.7 * self.t).exp()) / 0.1
        ...
        ...     def linearize(self, z):
        ...         return dense_linearization(self.residual, z)
        >>> result = GaussNewton().fit(Decay())
        >>> result.status.value, round(float(result.state["flat"]), 6)
        ('converged', 0.7)
    """

    max_steps: int = 200
    tolerance: float = 1e-8
    num_posterior_samples: int = 1000
    num_diagnostic_samples: int = 1000
    checkpoint_every: int = 10

    def __post_init__(self) -> None:
        require_whole(self, "max_steps", "num_posterior_samples", "checkpoint_every")
        require_whole(self, "num_diagnostic_samples", low=0)
        require_positive(self, "tolerance")

    def fit(
        self,
        model: LeastSquares,
        *,
        seed: Seed = 0,
        data: str = "",
        reason: str = "asked for",
        checkpoint: str | Path | None = None,
        resume: bool = False,
        callbacks: Sequence[Callback] = (),
        progress: bool = False,
    ) -> FitResult:
        """Minimise the residuals.

        Args:
            model: anything with ``initialize``, ``residual`` and ``linearize``.
            seed: of the starting point and the draws.
            data: digest of the data, for provenance and the checkpoint.
            reason: why this engine was chosen, for provenance.
            checkpoint: directory for the checkpoint; None for none.
            resume: go on from that checkpoint if it exists.
            callbacks: called after every step.
            progress: show a progress bar.

        Returns:
            A result with draws of the Gaussian at the minimum, as from ``Laplace``; the status is
            NOT_PSD where the residuals leave a direction undetermined.
        """
        run = Run(
            engine="GaussNewton",
            settings={**asdict(self), "model": model_settings(model)},
            limits=(
                *("max_steps", "num_posterior_samples", "num_diagnostic_samples"),
                "checkpoint_every",
            ),
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

    def _run(self, model: LeastSquares, run: Run, start: Checkpoint | None) -> FitResult:
        outcome = run.loop(
            lambda state, _: _step(model, state, self.tolerance),
            lambda generator: _initialize(model, generator),
            self.max_steps,
            stopping=Stalled(),
            start=start,
        )
        result = gaussian_result(
            _Density(model),
            outcome,
            run,
            num_samples=self.num_posterior_samples,
            num_diagnostics=self.num_diagnostic_samples,
        )

        def resume_with(**changes: Any) -> FitResult:
            engine = replace(self, **changes)
            following = replace(run, settings={**run.settings, **asdict(engine)})
            return engine._run(model, following, outcome.checkpoint)

        result.resume_with = resume_with
        return result


class _Density:
    """The posterior of a least-squares model, with J'J as its curvature."""

    def __init__(self, model: LeastSquares) -> None:
        self._model = model

    def initial(self, generator: torch.Generator) -> Tensor:
        return self._model.initialize(generator)

    def value_and_gradient(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        found = self._model.linearize(flat)
        return _half_square(found.residual), found.gradient

    def curvature(self, flat: Tensor) -> Precision:
        return self._model.linearize(flat).normal(0.0)

    def values(self, flat: Tensor) -> Tensor:
        return torch.stack([_half_square(self._model.residual(point)) for point in flat])

    def sites(self, flat: Tensor) -> dict[str, Tensor]:
        own = getattr(self._model, "sites", None)
        found: dict[str, Tensor] = {"z": flat} if own is None else own(flat)
        return found


def _initialize(model: LeastSquares, generator: torch.Generator) -> State:
    flat = model.initialize(generator)
    return {
        **{"flat": flat, "value": _half_square(model.residual(flat))},
        **{"damping": torch.tensor(_FIRST_DAMPING, dtype=torch.float64)},
        **{"growth": torch.tensor(2.0, dtype=torch.float64)},
    }


def _step(model: LeastSquares, state: State, tolerance: float) -> tuple[State, StepInfo]:
    """One trial step; the damping is relative to the largest diagonal entry of J'J."""
    found, value, relative = model.linearize(state["flat"]), state["value"], float(state["damping"])
    plain = found.normal(0.0)
    damping = relative * _scale(plain)
    along = -solve_precision(found.normal(damping), found.gradient)
    decrement = _decrement(plain, found.gradient, along)
    point = state["flat"] + along
    trial = _half_square(model.residual(point))
    predicted = float(-found.gradient @ along + damping * along @ along) / 2
    gained = float(value - trial) if math.isfinite(float(trial)) else -math.inf
    close = decrement < tolerance
    if gained > 0:
        factor = max(1 / 3, 1 - (2 * gained / max(predicted, 1e-300) - 1) ** 3)
        proposal: State = {
            **{"flat": point, "value": trial},
            "damping": state["damping"].new_tensor(max(relative * factor, _LEAST_DAMPING)),
            "growth": state["growth"].new_tensor(2.0),
        }
        return proposal, _info(proposal, decrement, converged=close)
    # no fall where little is left to gain is rounding, not a bad direction
    settled = close or (decrement < _AT_ROUNDING and abs(gained) <= 1e-12 * (1 + float(value)))
    proposal = {
        **state,
        "damping": state["damping"] * state["growth"],
        "growth": 2 * state["growth"],
    }
    stalled = not settled and relative > _GREATEST_DAMPING
    return proposal, _info(proposal, decrement, converged=settled, stalled=stalled)


def _decrement(plain: Precision, gradient: Tensor, along: Tensor) -> float:
    """The undamped decrement; the damped step's where J'J is singular."""
    try:
        along = -solve_precision(plain, gradient)
    except NotPositiveDefiniteError:
        return math.sqrt(max(-float(gradient @ along), 0.0))
    return math.sqrt(max(-float(gradient @ along), 0.0))


def _scale(plain: Precision) -> float:
    return float(plain.diagonal(dim1=-2, dim2=-1).max()) or 1.0


def _half_square(residual: Tensor) -> Tensor:
    return residual.square().sum() / 2


def _info(
    state: State, decrement: float, *, converged: bool = False, stalled: bool = False
) -> StepInfo:
    metrics = {
        "decrement": decrement,
        "damping": float(state["damping"]),
        "stalled": float(stalled),
    }
    return StepInfo(-float(state["value"]), converged=converged, metrics=metrics)
