"""The no-U-turn sampler for any Pyro model with continuous unknowns.

Pyro's sampler, one chain after the other, each with a seed of its own; one step of the loop is a
whole chain, so that an interrupted run goes on after its last complete chain. Step size and mass
matrix are adapted in the warm-up.

Source: Hoffman & Gelman, JMLR 15 (2014). Cost: up to ``2 ** max_tree_depth`` gradients a draw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyro.infer
import torch

from probkit.errors import ConfigurationError, NumericalError, message
from probkit.infer.callbacks import Callback
from probkit.infer.checkpoint import Checkpoint
from probkit.infer.engine import (
    Run,
    model_settings,
    require_choice,
    require_positive,
    require_whole,
)
from probkit.infer.loop import LoopOutcome, Step
from probkit.infer.model_checks import ModelChecks
from probkit.infer.model_sites import describe_by_model
from probkit.infer.native.lowering import Unsupported
from probkit.infer.native_potential import NativePotential
from probkit.infer.posterior import DrawsPosterior
from probkit.infer.potential import Potential, Unflattenable, flat_potential
from probkit.infer.protocols import State, StepInfo
from probkit.infer.pyro_data import ModelArguments
from probkit.infer.result import FitResult
from probkit.infer.sampling_diagnostics import mixing_diagnostics, mixing_status
from probkit.infer.seeding import param_scope, pyro_seed
from probkit.infer.site_checks import check_model
from probkit.infer.status import Status
from probkit.random import Seed

__all__ = ["NUTS"]

_DRAWS = "draws."
_WORTH_COMPILING = 100


class _Compiled(NamedTuple):
    potential: Potential
    native: NativePotential


@dataclass(frozen=True)
class NUTS:
    """No-U-turn sampler.

    A run that made all its chains ends as CONVERGED if every r_hat is at most 1.05 and as
    NOT_MIXED otherwise. With one chain r_hat compares its two halves, which is a weak test.

    Args:
        num_samples: kept draws of each chain.
        num_warmup: draws of each chain that adapt the sampler and are thrown away.
        num_chains: chains, run in sequence.
        target_accept: acceptance probability that the step size is adapted to, in (0, 1).
        max_tree_depth: limit on the doublings of a trajectory.
        full_mass: adapt a dense mass matrix instead of a diagonal one.
        compile: "auto", "on" or "off": gradients in native code, where the model has a graph;
            "auto" from 100 draws on. ``result.provenance["compile"]`` says what was done.

    Raises:
        ConfigurationError: a setting is not positive (warm-up may be 0), or acceptance not below 1.

    Example:
        >>> import pyro.distributions as dist
        >>> def model(y):
        ...     mu = pyro.sample("mu", dist.Normal(torch.zeros((), dtype=y.dtype), 10.0))
        ...     with pyro.plate("data", len(y)):
        ...         pyro.sample("y", dist.Normal(mu, 1.0), obs=y)
        >>> y = torch.linspace(2.0, 4.0, 50, dtype=torch.float64)
        >>> result = NUTS(num_samples=200, num_warmup=100).fit(model, y, seed=0)
        >>> abs(float(result.posterior.mean()["mu"]) - 3.0) < 0.1
        True
    """

    num_samples: int = 500
    num_warmup: int = 500
    num_chains: int = 1
    target_accept: float = 0.8
    max_tree_depth: int = 10
    full_mass: bool = False
    compile: str = "auto"

    def __post_init__(self) -> None:
        require_whole(self, "num_samples", "num_chains", "max_tree_depth")
        require_whole(self, "num_warmup", low=0)
        require_positive(self, "target_accept")
        require_choice(self, "compile", ("auto", "on", "off"))
        if self.target_accept >= 1:
            raise ConfigurationError(
                message(
                    "An acceptance probability must be below 1",
                    where="target_accept",
                    got=self.target_accept,
                )
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
        """Draw from the posterior. Pyro's parameter store is neither read nor changed.

        Args:
            model: a Pyro model; discrete unknowns are summed out where Pyro can.
            data: arguments of the model: a tensor, a tuple of arguments or a dict of keywords.
            seed: of all chains.
            reason: why this engine was chosen, for provenance.
            checkpoint: directory for the checkpoint, written after each chain; None for none.
            resume: go on from that checkpoint if it exists.
            callbacks: called after every chain.
            progress: show Pyro's progress bar of each chain.

        Returns:
            A result with draws (chain, draw, *event). Diagnostics: ``divergences`` (after the
            warm-up, by chain), ``acceptance``, ``r_hat``, ``ess_bulk``, ``warnings``.

        Raises:
            ShapeError, DtypeError, DataError: model and data do not fit; names the site.
            NumericalError: no chain could be completed.
            KeyboardInterrupt: interrupted before the first chain was complete.
        """
        arguments = ModelArguments.of(data)
        run = Run(
            engine="NUTS",
            settings={**asdict(self), "model": model_settings(model)},
            limits=("num_chains", "compile"),
            seed=seed,
            data=arguments.digest(),
            reason=reason,
            checkpoint=checkpoint,
            resume=resume,
            callbacks=callbacks,
            progress=progress,
            every=1,
        )
        return self._run(model, arguments, run, None)

    def _run(
        self,
        model: Callable[..., Any],
        arguments: ModelArguments,
        run: Run,
        start: Checkpoint | None,
    ) -> FitResult:
        with param_scope():
            with pyro_seed(0):
                check_model(model, arguments)
            sampled, route = self._route(model, arguments)
            step = self._step(sampled, model, arguments, run.progress)
            quiet = replace(run, progress=False)
            outcome = quiet.loop(step, lambda _: {}, self.num_chains, start=start)
        if outcome.num_steps == 0:
            _raise_unfinished(outcome)
        draws = {
            name.removeprefix(_DRAWS): value
            for name, value in outcome.state.items()
            if name.startswith(_DRAWS)
        }
        diagnostics = {**mixing_diagnostics(draws), **_sampler_diagnostics(outcome.state)}
        complete = outcome.status is Status.MAX_STEPS

        def resume_with(**changes: Any) -> FitResult:
            engine = replace(self, **changes)
            settings = {**run.settings, **asdict(engine)}
            following = replace(run, settings=settings)
            return engine._run(model, arguments, following, outcome.checkpoint)

        result = FitResult(
            mixing_status(diagnostics) if complete else outcome.status,
            DrawsPosterior(draws),
            {name: np.asarray(column) for name, column in outcome.history.items()},
            diagnostics,
            {**run.record(outcome.state), "compile": route},
            outcome.detail,
            resume_with,
            outcome.state,
        )
        return describe_by_model(result, ModelChecks(model, arguments))

    def _route(
        self, model: Callable[..., Any], arguments: ModelArguments
    ) -> tuple[_Compiled | None, dict[str, Any]]:
        """The potential in native code if there is one, and the record of it."""
        reason = f'compile="{self.compile}"'
        draws = self.num_samples + self.num_warmup
        if self.compile == "auto" and draws < _WORTH_COMPILING:
            reason = f"{draws} draws are too few to be worth a build"
        elif self.compile != "off":
            try:
                potential = flat_potential(model, arguments, torch.Generator().manual_seed(0))
                native = NativePotential(potential)
                return _Compiled(potential, native), {"compiled": True, "reason": self.compile}
            except (Unflattenable, Unsupported) as error:
                reason = str(error)
        return None, {"compiled": False, "reason": reason}

    def _step(
        self,
        compiled: _Compiled | None,
        model: Callable[..., Any],
        arguments: ModelArguments,
        progress: bool,
    ) -> Step:
        """One chain; the objective is the log joint density (unconstrained) of its last draw."""
        args, kwargs = arguments if compiled is None else ((), {})

        def step(state: State, generator: torch.Generator) -> tuple[State, StepInfo]:
            kernel = pyro.infer.NUTS(
                model if compiled is None else None,
                potential_fn=None if compiled is None else compiled.native,
                target_accept_prob=self.target_accept,
                max_tree_depth=self.max_tree_depth,
                full_mass=self.full_mass,
            )
            start = None
            if compiled is not None:
                start = {"z": compiled.potential.initial(1, generator)[0]}
            last: dict[str, Any] = {}

            def look(_: Any, values: dict[str, Any], stage: str, index: int) -> None:
                if stage.lower().startswith("sample") and index == self.num_samples - 1:
                    last.update(unconstrained=dict(values), figures=kernel.diagnostics())

            sampler = pyro.infer.MCMC(
                kernel,
                self.num_samples,
                self.num_warmup,
                initial_params=start,
                disable_progbar=not progress,
                hook_fn=look,
            )
            with pyro_seed(int(torch.randint(2**62, (), generator=generator))):
                try:
                    sampler.run(*args, **kwargs)
                except ValueError as error:
                    if "cannot find valid initial params" not in str(error):
                        raise
                    raise NumericalError(
                        message(
                            "No starting point with a finite log density and gradient was found",
                            remedy="check the data for extreme values, and rescale the model",
                        )
                    ) from error
            objective = -float(kernel.potential_fn(last["unconstrained"]))
            draws = sampler.get_samples(group_by_chain=True)
            if compiled is not None:
                sites = compiled.potential.constrain(draws["z"][0])
                draws = {name: value[None] for name, value in sites.items()}
            found = _chain_state(draws, last["figures"])
            joined = {k: torch.cat([state[k], v]) if state else v for k, v in found.items()}
            return joined, StepInfo(objective=objective)

        return step


def _chain_state(draws: dict[str, torch.Tensor], figures: dict[str, Any]) -> State:
    """Draws (1, draw, *event) of one chain with its sampler's statistics (1,)."""
    state = {f"{_DRAWS}{name}": value.detach() for name, value in draws.items()}
    state["divergences"] = torch.tensor([len(figures["divergences"])])
    rate = torch.as_tensor(figures["acceptance rate"], dtype=torch.float64)
    state["acceptance"] = rate.reshape(1)
    return state


def _sampler_diagnostics(state: State) -> dict[str, Any]:
    divergences = [int(count) for count in state["divergences"]]
    figures = {
        "divergences": divergences,
        "acceptance": [float(rate) for rate in state["acceptance"]],
    }
    if sum(divergences) == 0:
        return figures
    text = (
        f"{sum(divergences)} divergent transitions: part of the posterior may not have been "
        "reached. Raise target_accept, or reparametrise the model."
    )
    return {**figures, "warnings": [text]}


def _raise_unfinished(outcome: LoopOutcome) -> None:
    """There is no posterior to return before the first chain is complete."""
    if outcome.status is Status.INTERRUPTED:
        raise KeyboardInterrupt
    raise NumericalError(
        message(
            f"No chain could be completed. {outcome.status.message}",
            where=outcome.detail or None,
            remedy=outcome.status.remedy,
        )
    )
