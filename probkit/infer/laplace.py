"""Laplace's approximation: a Gaussian at the mode of the unconstrained posterior.

    q(z) = N(z; z*, H^-1),  z* = argmin U,  H = U''(z*),
    log p(x) ~ -U(z*) + (d log 2 pi - log det H) / 2

with U the negative log joint density of the unknowns mapped to the real line. The mode is found by
L-BFGS and Newton steps; H is dense for a Pyro model and of the model's own structure for a
``SmoothDensity`` that offers an operator (block-tridiagonal, say; Gauss–Newton if it likes). Draws
are weighed by p / q, which gives k-hat, a corrected evidence and corrected moments.

Source: Tierney & Kadane, JASA 81 (1986). Cost: one Hessian (d gradients, d^3 / 3) for each Newton
step, usually two or three, besides tens of gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probkit.errors import NotPositiveDefiniteError
from probkit.infer.callbacks import Callback
from probkit.infer.checkpoint import Checkpoint
from probkit.infer.densities import SmoothDensity, pyro_density
from probkit.infer.engine import Run, model_settings
from probkit.infer.gaussian_at_mode import GaussianAtMode
from probkit.infer.importance import WeightedDraws
from probkit.infer.loop import LoopOutcome
from probkit.infer.mode_search import ModeSearch
from probkit.infer.model_checks import ModelChecks
from probkit.infer.model_sites import describe_by_model
from probkit.infer.posterior import DrawsPosterior
from probkit.infer.pyro_data import ModelArguments
from probkit.infer.result import FitResult
from probkit.infer.status import Status
from probkit.infer.stopping import Stalled
from probkit.random import Seed
from probkit.validation import require_positive, require_whole

__all__ = ["Laplace"]


@dataclass(frozen=True)
class Laplace:
    """Gaussian approximation at the posterior mode.

    Args:
        max_steps: limit on L-BFGS and Newton steps together.
        tolerance: distance to the mode, in posterior standard deviations, that ends the search.
        num_posterior_samples: draws of the Gaussian that make up the posterior.
        num_diagnostic_samples: draws for k-hat, evidence and corrected moments; 0 for none.
        checkpoint_every: steps between two checkpoints.

    Raises:
        ConfigurationError: a setting out of its range.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(y):
        ...     rate = pyro.sample("rate", dist.Gamma(torch.ones((), dtype=y.dtype), 1.0))
        ...     with pyro.plate("data", len(y)):
        ...         pyro.sample("y", dist.Poisson(rate), obs=y)
        >>> result = Laplace().fit(model, torch.full((50,), 4.0, dtype=torch.float64), seed=0)
        >>> result.status.value, abs(float(result.posterior.mean()["rate"]) - 201 / 51) < 0.05
        ('converged', True)
    """

    max_steps: int = 1000
    tolerance: float = 1e-6
    num_posterior_samples: int = 1000
    num_diagnostic_samples: int = 1000
    checkpoint_every: int = 50

    def __post_init__(self) -> None:
        require_whole(self, "max_steps", "num_posterior_samples", "checkpoint_every")
        require_whole(self, "num_diagnostic_samples", low=0)
        require_positive(self, "tolerance")

    def fit(
        self,
        model: Callable[..., Any] | SmoothDensity,
        data: Any = None,
        *,
        seed: Seed = 0,
        reason: str = "asked for",
        checkpoint: str | Path | None = None,
        resume: bool = False,
        callbacks: Sequence[Callback] = (),
        progress: bool = False,
    ) -> FitResult:
        """Find the mode and its Gaussian.

        Args:
            model: a Pyro model with continuous unknowns, or a ``SmoothDensity``.
            data: arguments of a Pyro model: a tensor, a tuple of arguments or a dict of keywords.
            seed: of the starting point and the draws.
            reason: why this engine was chosen, for provenance.
            checkpoint: directory for the checkpoint; None for none.
            resume: go on from that checkpoint if it exists.
            callbacks: called after every step.
            progress: show a progress bar.

        Returns:
            A result with draws (1, num_posterior_samples, *event) of unknowns and
            ``pyro.deterministic`` sites, and weighted ones in ``importance``. Diagnostics:
            ``log_evidence_laplace``, ``khat``, ``log_evidence`` (corrected), ``importance_ess``,
            ``sd_ratio``, ``gradient_norm``, ``warnings``. Where the curvature is not positive
            definite the status is NOT_PSD and the only draw is the point that was reached.

        Raises:
            ConfigurationError: discrete or no unknowns, or subsampling.
            ShapeError: the log density of a site does not fit its plates.
            NumericalError: no starting point with a finite density.
        """
        density, digest = density_of(model, data)
        run = Run(
            engine="Laplace",
            settings={**asdict(self), "model": model_settings(model)},
            limits=(
                *("max_steps", "num_posterior_samples", "num_diagnostic_samples"),
                "checkpoint_every",
            ),
            seed=seed,
            data=digest,
            reason=reason,
            checkpoint=checkpoint,
            resume=resume,
            callbacks=callbacks,
            progress=progress,
            every=self.checkpoint_every,
        )
        checks = None
        if not isinstance(model, SmoothDensity):
            checks = ModelChecks(model, ModelArguments.of(data))
        return self._run(density, checks, run, None)

    def _run(
        self,
        density: SmoothDensity,
        checks: ModelChecks | None,
        run: Run,
        start: Checkpoint | None,
    ) -> FitResult:
        search = ModeSearch(density, self.tolerance, newton=True)
        outcome = run.loop(
            search.step, search.initialize, self.max_steps, stopping=Stalled(), start=start
        )
        result = gaussian_result(
            density,
            outcome,
            run,
            num_samples=self.num_posterior_samples,
            num_diagnostics=self.num_diagnostic_samples,
        )

        def resume_with(**changes: Any) -> FitResult:
            engine = replace(self, **changes)
            following = replace(run, settings={**run.settings, **asdict(engine)})
            return engine._run(density, checks, following, outcome.checkpoint)

        result.resume_with = resume_with
        return result if checks is None else describe_by_model(result, checks)


def density_of(model: Any, data: Any) -> tuple[SmoothDensity, str]:
    """The density of a model with its data, and the data's digest."""
    if isinstance(model, SmoothDensity):
        own = getattr(model, "data_digest", None)
        return model, own() if callable(own) else ""
    arguments = ModelArguments.of(data)
    return pyro_density(model, arguments), arguments.digest()


def gaussian_result(
    density: SmoothDensity,
    outcome: LoopOutcome,
    run: Run,
    *,
    num_samples: int,
    num_diagnostics: int,
) -> FitResult:
    """The result of a search that ended at ``state["flat"]``: draws, evidence and k-hat there."""
    state, status, detail = outcome.state, outcome.status, outcome.detail
    generator = torch.Generator()
    generator.set_state(outcome.generator_state)
    value, gradient = density.value_and_gradient(state["flat"])
    norm = {"gradient_norm": float(gradient.norm()), "num_steps": outcome.num_steps}
    weighted = None
    try:
        gaussian = GaussianAtMode(state["flat"], density.curvature(state["flat"]))
    except NotPositiveDefiniteError as error:
        status, detail = (Status.NOT_PSD if status.ok else status), str(error)
        draws = density.sites(state["flat"][None])
        text = "The only draw is the point that the search reached: it carries no uncertainty."
        diagnostics: dict[str, Any] = {**norm, "warnings": [text]}
    else:
        draws = density.sites(gaussian.sample(num_samples, generator))
        diagnostics = {**norm, "log_evidence_laplace": _evidence(value, gaussian)}
        if num_diagnostics:
            points = gaussian.sample(num_diagnostics, generator)
            log_weights = -density.values(points) - gaussian.log_prob(points)
            weighted = WeightedDraws(density.sites(points), log_weights)
            diagnostics |= weighted.diagnostics()
    return FitResult(
        status,
        DrawsPosterior({name: value[None] for name, value in draws.items()}),
        {name: np.asarray(column) for name, column in outcome.history.items()},
        diagnostics,
        run.record(state),
        detail,
        None,
        state,
        weighted,
    )


def _evidence(value: Tensor, gaussian: GaussianAtMode) -> float:
    size = gaussian.mode.numel()
    return -float(value) + (size * math.log(2 * math.pi) - float(gaussian.logdet)) / 2
