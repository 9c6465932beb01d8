"""Stochastic variational inference for any Pyro model: Adam on a Monte-Carlo ELBO.

Maximises E_q[log p(x, z) - log q(z)] over the parameters of guide and model. One step of the loop
is one gradient step; parameters, both Adam moments and the best parameters so far are the loop's
state, and the random numbers of a step come from a seed drawn from the loop's generator, so that
a step is a pure function of its state and an interrupted fit goes on bit by bit. The learning rate
falls geometrically, ``learning_rate * decay ** (step / steps)``.

Sources: Ranganath, Gerrish & Blei, AISTATS 2014 (black-box VI); Kingma & Ba, ICLR 2015 (Adam).
Cost of a step: ``num_particles`` runs of guide and model, forward and backward.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.infer
import torch

from probkit.errors import ConfigurationError, NotPositiveDefiniteError, NumericalError, message
from probkit.infer.broken_site import broken_site
from probkit.infer.callbacks import Callback
from probkit.infer.checkpoint import Checkpoint
from probkit.infer.elbo import ElboProgram, soften
from probkit.infer.engine import (
    Run,
    model_settings,
    require_choice,
    require_not_negative,
    require_positive,
    require_whole,
)
from probkit.infer.guide_posterior import posterior_of
from probkit.infer.guide_weights import WeighedGuide, weigh_guide
from probkit.infer.loop import LoopOutcome, Recovery
from probkit.infer.model_checks import ModelChecks
from probkit.infer.model_sites import describe_by_model
from probkit.infer.protocols import State
from probkit.infer.pyro_data import ModelArguments, StreamedArguments
from probkit.infer.result import FitResult
from probkit.infer.seeding import param_scope, pyro_seed
from probkit.infer.starting_points import best_start
from probkit.infer.status import Status
from probkit.infer.stopping import (
    FirstOf,
    ImprovementPatience,
    SecondsBudget,
    StoppingRule,
    settled,
)
from probkit.infer.variational import (
    final_guide,
    guide_draws,
    make_guide,
    point_estimate_warning,
)
from probkit.random import Seed, as_generator

__all__ = ["SVI"]

_MAX_BATCHES = 200
_START_SHARE = 20
_OPTIONAL = ("clip_norm", "max_seconds", "patience", "batch_size")


@dataclass(frozen=True)
class SVI:
    """Stochastic variational inference.

    Args:
        steps: largest number of gradient steps.
        learning_rate: step size at the start; .05 suits natural gradients.
        decay: final learning rate as a fraction of the first.
        clip_norm: largest norm of the gradient; None for any.
        optimizer: "adam", or "natural": plain steps along natural gradients, for the guides
            "mean_field" and "full_rank".
        weight_decay: of AdamW (Loshchilov & Hutter, ICLR 2019); 0 is Adam.
        num_starts: starting points, which autoguides draw from the seed; each runs for a twentieth
            of the steps, eager ones as one batch (``torch.func.vmap``), and the best goes on.
        guide: a form ("mean_field", "low_rank", "full_rank", "flow"; the saved result then draws
            anew without model and data), the name or class of a Pyro autoguide, a guide function,
            or a PyroModule. Parameters of a module (guide or model) are trained in place, as
            always in torch.
        batch_size: rows of a minibatch; all data tensors must then share their first dimension,
            and the model is run on the rows with its observed sites scaled up. Models with
            unknowns of their own for every row subsample with ``pyro.plate`` instead.
        num_particles: draws for each gradient.
        vectorize_particles: draw them in one run; the model must broadcast over a left dimension.
        elbo: name of Pyro's objective: "Trace_ELBO", "TraceMeanField_ELBO", "TraceEnum_ELBO",
            "TraceGraph_ELBO", or "RenyiELBO", which with ``num_particles`` draws is the
            importance-weighted bound of Burda, Grosse & Salakhutdinov (ICLR 2016).
        window: steps that are averaged to judge progress; the returned parameters are those of
            the latest window that is not worse than the best by more than chance explains.
        patience: windows without improvement after which to stop early; None for never: the
            learning rate then falls as far as ``decay`` says, which a fit that stops at a high one
            pays for with noise in its posterior. Without it, a fit has CONVERGED if the last fifth
            of its steps gained nothing on the one before.
        num_posterior_samples: draws of the fitted guide that make up the posterior.
        num_diagnostic_samples: draws for the final ELBO, PSIS k-hat and corrected moments; 0 for
            none; at most 200 where guide and model cannot be run on many draws at once. Only the
            ELBO is estimated, and only by 200 minibatches, where ``batch_size`` is given or the
            model subsamples its data.
        checkpoint_every: steps between two checkpoints.
        stopping: a rule of ``probkit.infer.stopping`` to stop early by, in place of patience.
        max_seconds: CPU seconds after which the fit ends as OUT_OF_TIME.
        max_retries: attempts in a row to go on, with other random numbers and steps a tenth as
            long, where an objective or gradient is not finite or a matrix not positive definite.
        compile: "auto", "on" or "off". Compiled steps run in native code, a thousand times faster
            than eager ones; "auto" builds it (in about a second) where that pays. What was done,
            and the reason, is in ``result.provenance["compile"]``; what cannot be compiled runs
            eagerly.

    Raises:
        ConfigurationError: a setting out of its range.

    Example:
        >>> import pyro.distributions as dist
        >>> def model(y):
        ...     mu = pyro.sample("mu", dist.Normal(torch.zeros((), dtype=y.dtype), 10.0))
        ...     with pyro.plate("data", len(y)):
        ...         pyro.sample("y", dist.Normal(mu, 1.0), obs=y)
        >>> y = torch.linspace(2.0, 4.0, 50, dtype=torch.float64)
        >>> result = SVI(steps=800, learning_rate=0.05).fit(model, y, seed=0)
        >>> abs(float(result.posterior.mean()["mu"]) - 3.0) < 0.1
        True
    """

    steps: int = 2000
    learning_rate: float = 0.01
    decay: float = 0.1
    clip_norm: float | None = None
    optimizer: str = "adam"
    weight_decay: float = 0.0
    num_starts: int = 1
    guide: Any = "AutoNormal"
    batch_size: int | None = None
    num_particles: int = 1
    vectorize_particles: bool = False
    elbo: str = "Trace_ELBO"
    window: int = 200
    patience: int | None = None
    num_posterior_samples: int = 1000
    num_diagnostic_samples: int = 1000
    checkpoint_every: int = 200
    stopping: StoppingRule | None = None
    max_seconds: float | None = None
    max_retries: int = 3
    compile: str = "auto"

    def __post_init__(self) -> None:
        require_whole(self, "steps", "num_particles", "window", "num_starts")
        require_whole(self, "num_posterior_samples", "checkpoint_every")
        require_whole(self, "num_diagnostic_samples", "max_retries", low=0)
        require_positive(self, "learning_rate", "decay")
        require_not_negative(self, "weight_decay")
        given = [name for name in _OPTIONAL if getattr(self, name) is not None]
        for name in given:
            (require_whole if name in ("patience", "batch_size") else require_positive)(self, name)
        require_choice(self, "compile", ("auto", "on", "off"))
        require_choice(self, "optimizer", ("adam", "natural"))
        known = [name for name in dir(pyro.infer) if name.endswith(("_ELBO", "RenyiELBO"))]
        if self.elbo not in known:
            raise ConfigurationError(
                message("There is no such ELBO", where="elbo", got=self.elbo, expected=known)
            )

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
        """Fit the guide. Nothing is left in Pyro's parameter store, nor is it read.

        Args:
            model: any Pyro model.
            data: arguments of the model: a tensor, a tuple of arguments or a dict of keywords; or
                ``Batches`` of them from an iterable.
            seed: of starting values, gradients and posterior draws.
            reason: why this engine was chosen, for provenance.
            checkpoint: directory for the checkpoint; None for none.
            resume: go on from that checkpoint if it exists.
            callbacks: called after every step.
            progress: show a progress bar.

        Returns:
            A result whose posterior are draws of the guide, (1, num_posterior_samples, *event),
            with ``pyro.deterministic`` sites where the model was fitted on all its data at once;
            ``state`` holds the unconstrained parameters, ``param.NAME``. Diagnostics: ``elbo``,
            ``elbo_se``, ``khat``, ``importance_ess``, ``log_evidence`` (corrected), ``sd_ratio``
            and ``warnings``; ``importance`` holds the weighted draws. A step that breaks down
            ends the fit as NON_FINITE or NOT_PSD, and ``detail`` names the site.

        Raises:
            ShapeError, DtypeError, DataError, ConfigurationError: model, guide and data do not fit
                together; the message names the site.
            NumericalError, NotPositiveDefiniteError: the first step broke down.
        """
        arguments = ModelArguments.of(data)
        run = Run(
            engine=type(self).__name__,
            settings={**self._settings(), "model": model_settings(model)},
            limits=(
                *("steps", "checkpoint_every", "num_posterior_samples"),
                *("num_diagnostic_samples", "compile", "stopping", "max_seconds"),
            ),
            seed=seed,
            data=arguments.digest(),
            reason=reason,
            checkpoint=checkpoint,
            resume=resume,
            callbacks=callbacks,
            progress=progress,
            every=self.checkpoint_every,
        )
        with param_scope():
            guide = self._guide(model, arguments, torch.Generator().manual_seed(0))
        return self._run(model, guide, arguments, run, None)

    def _run(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        arguments: ModelArguments,
        run: Run,
        start: Checkpoint | None,
    ) -> FitResult:
        with param_scope():
            program = self._program(model, guide, arguments)
            # always run, for a resumed fit too: it makes the parameters and fixes the plates
            generator = as_generator(run.seed)
            initial = program.initialize(generator)
            with pyro_seed(0):  # steps seed the global generators, which are the user's
                outcome = run.loop(
                    program.step,
                    lambda g: self._first_state(program, model, arguments, initial, g),
                    self.steps,
                    stopping=self._stopping(),
                    start=start,
                    generator=generator,
                    recovery=Recovery(self.max_retries, soften),
                )
            detail = self._explain(program, outcome)
            program.load_best(outcome.state)
            learned = {n: v.detach().clone() for n, v in pyro.get_param_store().items()}
            draws, weighed = self._finish(program, outcome.generator_state)

        def resume_with(**changes: Any) -> FitResult:
            engine = replace(self, **changes)
            settings = {**run.settings, **engine._settings()}
            following = replace(run, settings=settings)
            return engine._run(model, guide, arguments, following, outcome.checkpoint)

        result = FitResult(
            self._status(outcome),
            posterior_of(draws, guide, learned),
            {name: np.asarray(column) for name, column in outcome.history.items()},
            weighed.diagnostics if draws else {**weighed.diagnostics, "point_estimate": True},
            {**run.record(outcome.state), "compile": program.route},
            detail,
            resume_with,
            outcome.state,
            weighed.weighted,
        )
        checks = ModelChecks(model, arguments, learned)
        streamed, whole = isinstance(arguments, StreamedArguments), self.batch_size is None
        return result if streamed else describe_by_model(result, checks, derived=whole)

    def _guide(
        self, model: Callable[..., Any], arguments: ModelArguments, generator: torch.Generator
    ) -> Callable[..., Any]:
        with pyro_seed(int(torch.randint(2**62, (), generator=generator))):
            return make_guide(self.guide, model, arguments)

    def _first_state(
        self,
        program: ElboProgram,
        model: Callable[..., Any],
        arguments: ModelArguments,
        initial: State,
        generator: torch.Generator,
    ) -> State:
        """The state to start from: the only one, or the best of several."""

        def another() -> State:
            with param_scope():
                guide = self._guide(model, arguments, generator)
                eager = replace(self, compile="off")._program(model, guide, arguments)
                return eager.initialize(generator)

        length = max(self.steps // _START_SHARE, 1)
        return best_start(program, initial, another, self.num_starts, length, generator)

    def _explain(self, program: ElboProgram, outcome: LoopOutcome) -> str:
        """The outcome's detail, with the site where a step broke down.

        Raises:
            NumericalError, NotPositiveDefiniteError: the very first step broke down, so that
                there is nothing to keep.
        """
        if outcome.status.ok:
            return outcome.detail
        program.load(outcome.state)
        with pyro_seed(0):
            site = broken_site(program.model, program.guide, program.batch())
        detail = f"{outcome.detail}: {site}" if site else outcome.detail
        if outcome.num_steps:
            return detail
        broken = outcome.status is Status.NOT_PSD
        raise (NotPositiveDefiniteError if broken else NumericalError)(
            message(
                f"The first step broke down, {self.max_retries} retries included: {detail}",
                remedy=outcome.status.remedy,
            )
        )

    def _program(
        self, model: Callable[..., Any], guide: Callable[..., Any], arguments: ModelArguments
    ) -> ElboProgram:
        return ElboProgram(
            model,
            guide,
            arguments,
            self._elbo(),
            batch_size=self.batch_size,
            window=self.window,
            learning_rate=self._rate,
            steps=self.steps,
            compile=self.compile,
            clip_norm=self.clip_norm,
            weight_decay=self.weight_decay,
            natural=self.optimizer == "natural",
        )

    def _finish(
        self, program: ElboProgram, generator_state: torch.Tensor
    ) -> tuple[Mapping[str, torch.Tensor], WeighedGuide]:
        """Posterior draws, and weighted ones with diagnostics, at the best parameters."""
        generator = torch.Generator()
        generator.set_state(generator_state)
        with pyro_seed(int(torch.randint(2**62, (), generator=generator))):
            guide = final_guide(program.guide, program.batch())
            draws = guide_draws(guide, program.batch(), self.num_posterior_samples)
            count = self.num_diagnostic_samples
            weighed = WeighedGuide(None, {})
            point = point_estimate_warning(guide)
            streamed = isinstance(program.batch(), StreamedArguments)
            if count and (self.batch_size is not None or streamed):
                note = "not computed: it needs runs on the full data"
                estimate = program.estimate(min(count, _MAX_BATCHES), generator)
                weighed = WeighedGuide(None, {**estimate, "khat_note": note})
            elif count and not point:
                weighed = weigh_guide(program.model, guide, program.batch(), count)
                if weighed.weighted is None:  # the model draws minibatches by itself
                    estimate = program.estimate(min(count, _MAX_BATCHES), generator)
                    weighed = WeighedGuide(None, {**estimate, **weighed.diagnostics})
        return draws, weighed._replace(diagnostics={**weighed.diagnostics, **point})

    def _stopping(self) -> StoppingRule | None:
        rules = [] if self.stopping is None else [self.stopping]
        if self.stopping is None and self.patience is not None:
            rules.append(ImprovementPatience(self.window, self.patience))
        if self.max_seconds is not None:
            rules.append(SecondsBudget(self.max_seconds))
        return FirstOf(tuple(rules)) if rules else None

    def _status(self, outcome: LoopOutcome) -> Status:
        if outcome.status is Status.MAX_STEPS and settled(outcome.history["objective"]):
            return Status.CONVERGED
        return outcome.status

    def _elbo(self) -> Any:
        return getattr(pyro.infer, self.elbo)(
            num_particles=self.num_particles, vectorize_particles=self.vectorize_particles
        )

    def _rate(self, number: int) -> float:
        return self.learning_rate * math.pow(self.decay, min(number / self.steps, 1.0))

    def _settings(self) -> dict[str, Any]:
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        if not isinstance(self.guide, str):
            values["guide"] = getattr(self.guide, "__qualname__", type(self.guide).__qualname__)
        return values
