"""The most probable point of a Pyro model, by L-BFGS.

Maximises log p(x, z) over the unknowns themselves (as Pyro's ``AutoDelta`` does), or over their
unconstrained forms with ``unconstrained=True``, which is where ``Laplace`` puts its Gaussian. The
two modes differ; neither is a posterior, and the result says so. Cost: tens of gradients, and for
up to 500 unknowns one Hessian (a gradient for each unknown), which tells a mode from a saddle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from probkit.infer.callbacks import Callback
from probkit.infer.checkpoint import Checkpoint
from probkit.infer.densities import PyroDensity, pyro_density
from probkit.infer.engine import Run, model_settings
from probkit.infer.mode_search import ModeSearch
from probkit.infer.point_estimate import PointEstimate
from probkit.infer.pyro_data import ModelArguments
from probkit.infer.result import FitResult
from probkit.infer.status import Status
from probkit.infer.stopping import Stalled
from probkit.random import Seed
from probkit.validation import require_positive, require_whole

__all__ = ["MAP"]

_FLAT = 1e-13


@dataclass(frozen=True)
class MAP:
    """Maximum a posteriori.

    Args:
        max_steps: limit on L-BFGS steps.
        tolerance: estimated distance to the mode, in posterior standard deviations, that ends the
            search.
        unconstrained: count densities on the real line, determinants of the maps included.
        checkpoint_every: steps between two checkpoints.

    Raises:
        ConfigurationError: a setting is not positive.

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> def model(y):
        ...     rate = pyro.sample("rate", dist.Gamma(torch.tensor(2.0).double(), 1.0))
        ...     with pyro.plate("data", len(y)):
        ...         pyro.sample("y", dist.Poisson(rate), obs=y)
        >>> result = MAP().fit(model, torch.full((9,), 4.0, dtype=torch.float64), seed=0)
        >>> round(float(result.posterior.point()["rate"]), 4)  # (2 - 1 + 36) / (1 + 9)
        3.7
    """

    max_steps: int = 2000
    tolerance: float = 1e-6
    unconstrained: bool = False
    checkpoint_every: int = 50

    def __post_init__(self) -> None:
        require_whole(self, "max_steps", "checkpoint_every")
        require_positive(self, "tolerance")

    def fit(
        self,
        model: Callable[..., Any],
        data: Any = None,
        *,
        seed: Seed = 0,
        reason: str = "asked for",
        checkpoint: str | Path | None = None,
        resume: bool = False,
        callbacks: Sequence[Callback] = (),
        progress: bool = False,
    ) -> FitResult:
        """Find the mode.

        Args:
            model: a Pyro model with continuous unknowns.
            data: arguments of the model: a tensor, a tuple of arguments or a dict of keywords.
            seed: of the starting point.
            reason: why this engine was chosen, for provenance.
            checkpoint: directory for the checkpoint; None for none.
            resume: go on from that checkpoint if it exists.
            callbacks: called after every step.
            progress: show a progress bar.

        Returns:
            A result whose ``posterior`` is a ``PointEstimate``. Diagnostics: ``log_joint``,
            ``gradient_norm``, ``num_steps``, ``warnings``, and ``least_curvature``, the least
            eigenvalue of the Hessian over the largest in absolute value (None where it was not
            computed: beyond 500 unknowns, or without second derivatives): not above zero, the point
            is no mode, or one direction is flat. The status of a clear saddle is STALLED.

        Raises:
            ConfigurationError: discrete or no unknowns, or subsampling.
            ShapeError: the log density of a site does not fit its plates.
            NumericalError: no starting point with a finite density.
        """
        arguments = ModelArguments.of(data)
        run = Run(
            engine="MAP",
            settings={**asdict(self), "model": model_settings(model)},
            limits=("max_steps", "checkpoint_every"),
            seed=seed,
            data=arguments.digest(),
            reason=reason,
            checkpoint=checkpoint,
            resume=resume,
            callbacks=callbacks,
            progress=progress,
            every=self.checkpoint_every,
        )
        density = pyro_density(model, arguments, jacobian=self.unconstrained)
        return self._run(density, run, None)

    def _run(self, density: PyroDensity, run: Run, start: Checkpoint | None) -> FitResult:
        search = ModeSearch(density, self.tolerance, newton=False)
        outcome = run.loop(
            search.step, search.initialize, self.max_steps, stopping=Stalled(), start=start
        )
        state = outcome.state
        sites = {name: value[0] for name, value in density.sites(state["flat"][None]).items()}

        def resume_with(**changes: Any) -> FitResult:
            engine = replace(self, **changes)
            following = replace(run, settings={**run.settings, **asdict(engine)})
            return engine._run(density, following, outcome.checkpoint)

        texts = ["A point estimate carries no uncertainty; use Laplace, SVI or HMC for that."]
        least = float(state["least_curvature"]) if "least_curvature" in state else None
        if least is None and outcome.status is Status.CONVERGED:
            texts.append(
                "Whether this is a mode or a saddle was not looked at: no Hessian at hand."
            )
        elif least is not None and least < _FLAT:
            texts.append(
                "The curvature at this point is not positive definite: some direction is flat, or "
                "the point is a saddle or an edge. Compare log_joint with that of other seeds."
            )
        return FitResult(
            outcome.status,
            PointEstimate(sites),
            {name: np.asarray(column) for name, column in outcome.history.items()},
            {
                "log_joint": -float(state["value"]),
                "gradient_norm": float(state["gradient"].norm()),
                "num_steps": outcome.num_steps,
                "point_estimate": True,
                "least_curvature": least,
                "warnings": texts,
            },
            run.record(state),
            outcome.detail,
            resume_with,
            state,
        )
