"""Hamiltonian Monte Carlo with many chains at once, for any Pyro model with continuous unknowns.

The model is traced once to a graph of its potential (``potential``) and sampled by trajectories
whose lengths are known in advance (``trajectories``), in native code where there is a C++
compiler. What is adapted is adapted from all chains together (``many_chains``). Chains share
one step size and one metric: where the right step size differs from place to place (a funnel),
``NUTS`` or another parametrisation serves better, and the result says so.

Cost: about ``pi / (2 step size)`` gradients a draw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from probkit.errors import ConfigurationError, message
from probkit.infer.callbacks import Callback
from probkit.infer.checkpoint import Checkpoint
from probkit.infer.engine import (
    Run,
    model_settings,
    require_choice,
    require_positive,
    require_whole,
)
from probkit.infer.hmc_diagnostics import energy_diagnostics, sampler_status, stuck_chains
from probkit.infer.many_chains import ManyChains
from probkit.infer.model_checks import ModelChecks
from probkit.infer.model_sites import describe_by_model
from probkit.infer.native.lowering import Unsupported
from probkit.infer.nuts import NUTS
from probkit.infer.posterior import DrawsPosterior
from probkit.infer.potential import Potential, Unflattenable, flat_potential
from probkit.infer.pyro_data import ModelArguments
from probkit.infer.result import FitResult
from probkit.infer.sampling_diagnostics import mixing_diagnostics
from probkit.infer.status import Status
from probkit.infer.trajectories import NativeTrajectories, Trajectories, eager_trajectories
from probkit.random import Seed

__all__ = ["HMC"]

_CHEAP, _DEAR = 20_000, 500_000
_WORTH_COMPILING = 100
_SMALL = 256
"""products that cost nothing beside the call of a gradient"""


@dataclass(frozen=True)
class HMC:
    """Many-chain Hamiltonian Monte Carlo.

    A run that made all its draws ends as CONVERGED if every r_hat is at most 1.05, at most one
    transition in a thousand diverged and E-BFMI is at least 0.3, and as NOT_MIXED otherwise.

    Args:
        num_samples: kept draws of each chain.
        num_warmup: trajectories of each chain that adapt the sampler and are thrown away.
        num_chains: chains; "auto" takes 32 where a gradient is cheap, 8 or 4 where it is dear,
            judged by the number of elements it computes.
        target_accept: acceptance probability that the step size is adapted to, in (0, 1).
        max_leapfrogs: limit on the steps of a trajectory.
        dense_mass: adapt a dense metric instead of a diagonal one; "auto" where its products, d^2
            for d unknowns, cost less than a gradient.
        compile: "auto" runs natively where that is possible and the run is not very short, "on"
            wherever it is possible, "off" never. What was done and why is in the provenance.

    Raises:
        ConfigurationError: a setting is not positive (warm-up may be 0), acceptance is not below 1,
            or a word is not among those above.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(y):
        ...     mu = pyro.sample("mu", dist.Normal(torch.zeros((), dtype=y.dtype), 10.0))
        ...     with pyro.plate("data", len(y)):
        ...         pyro.sample("y", dist.Normal(mu, 1.0), obs=y)
        >>> y = torch.linspace(2.0, 4.0, 50, dtype=torch.float64)
        >>> result = HMC(num_samples=50, num_warmup=40).fit(model, y, seed=0)
        >>> abs(float(result.posterior.mean()["mu"]) - 3.0) < 0.1
        True
    """

    num_samples: int = 500
    num_warmup: int = 300
    num_chains: int | Literal["auto"] = "auto"
    target_accept: float = 0.8
    max_leapfrogs: int = 200
    dense_mass: bool | Literal["auto"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"

    def __post_init__(self) -> None:
        require_whole(self, "num_samples", "max_leapfrogs")
        require_whole(self, "num_warmup", low=0)
        require_positive(self, "target_accept")
        if self.num_chains != "auto":
            require_whole(self, "num_chains")
        if self.target_accept >= 1:
            raise ConfigurationError(
                message(
                    "An acceptance probability must be below 1",
                    where="target_accept",
                    got=self.target_accept,
                )
            )
        require_choice(self, "compile", ("auto", "on", "off"))
        require_choice(self, "dense_mass", (True, False, "auto"))

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

        A model that cannot be traced to a graph (discrete unknowns, control flow by values) is
        sampled by ``NUTS`` with the same settings; the provenance says so.

        Args:
            model: a Pyro model.
            data: arguments of the model: a tensor, a tuple of arguments or a dict of keywords.
            seed: of starts, momenta and acceptances.
            reason: why this engine was chosen, for provenance.
            checkpoint: directory for the checkpoint, written after each block; None for none.
            resume: go on from that checkpoint if it exists.
            callbacks: called after every block of 25 trajectories.
            progress: show a progress bar.

        Returns:
            A result with draws (chain, draw, *event) of unknowns and ``pyro.deterministic`` sites.
            Diagnostics: ``divergences``, ``acceptance`` (by chain), ``e_bfmi``, ``r_hat``,
            ``ess_bulk``, ``num_leapfrogs`` (of each chain), ``restarts`` (by chain: how often it
            was moved in the warm-up because it was stuck), ``never_moved`` (numbers of chains whose
            draws are all the same), ``warnings``.

        Raises:
            ConfigurationError: no unknowns, a plate that subsamples, or a model that is random
                outside its sites.
            ShapeError: the log density of a site does not fit its plates.
            NumericalError: no starting point with a finite density.
        """
        arguments = ModelArguments.of(data)
        try:
            # a seed of its own: a resumed run traces again and must not draw other numbers
            potential = flat_potential(model, arguments, torch.Generator().manual_seed(0))
        except Unflattenable as error:
            why = f"{reason}; NUTS in place of HMC, because the model has no graph: {error}"
            return self._nuts().fit(
                model,
                data,
                seed=seed,
                reason=why,
                checkpoint=checkpoint,
                resume=resume,
                callbacks=callbacks,
                progress=progress,
            )
        run = Run(
            engine="HMC",
            settings={**asdict(self), "model": model_settings(model)},
            limits=("num_samples",),
            seed=seed,
            data=arguments.digest(),
            reason=reason,
            checkpoint=checkpoint,
            resume=resume,
            callbacks=callbacks,
            progress=progress,
            every=1,
        )
        checks = ModelChecks(model, arguments)
        return self._run(potential, *self._trajectories(potential), checks, run, None)

    def _run(
        self,
        potential: Potential,
        trajectories: Trajectories,
        how: dict[str, Any],
        checks: ModelChecks,
        run: Run,
        start: Checkpoint | None,
    ) -> FitResult:
        dense = _dense(self.dense_mass, potential)
        sampler = ManyChains(
            potential,
            trajectories,
            num_chains=_chains(self.num_chains, potential.work),
            num_warmup=self.num_warmup,
            num_samples=self.num_samples,
            target_accept=self.target_accept,
            max_leapfrogs=self.max_leapfrogs,
            dense=dense,
        )
        outcome = run.loop(sampler.step, sampler.initial, sampler.num_steps, start=start)
        state = outcome.state
        kept = max(0, min(int(state["num_trajectories"]) - self.num_warmup, self.num_samples))
        draws = _constrained(potential, state["draws"][:, :kept])
        energy = energy_diagnostics(state["energies"][:, :kept], state["errors"][:, :kept])
        leapfrogs = {"num_leapfrogs": int(state["num_leapfrogs"])}
        stuck = stuck_chains(state["draws"][:, :kept], state["restarts"])
        warnings = [*energy.pop("warnings", []), *stuck.pop("warnings")]
        diagnostics = {**mixing_diagnostics(draws), **energy, **leapfrogs, **stuck}
        diagnostics |= {"warnings": warnings} if warnings else {}
        status, detail = outcome.status, outcome.detail
        if status is Status.MAX_STEPS:
            status, detail = sampler_status(diagnostics)

        def resume_with(**changes: Any) -> FitResult:
            engine = replace(self, **changes)
            following = replace(run, settings={**run.settings, **asdict(engine)})
            return engine._run(potential, trajectories, how, checks, following, outcome.checkpoint)

        result = FitResult(
            status,
            DrawsPosterior(draws),
            {name: np.asarray(column) for name, column in outcome.history.items()},
            diagnostics,
            {**run.record(state), "compile": how, "metric": "dense" if dense else "diagonal"},
            detail,
            resume_with,
            state,
        )
        return describe_by_model(result, checks)

    def _trajectories(self, potential: Potential) -> tuple[Trajectories, dict[str, Any]]:
        """How blocks run, and the record of it for the provenance."""
        total = self.num_warmup + self.num_samples
        reason = f'compile="{self.compile}"'
        if self.compile == "auto" and total < _WORTH_COMPILING:
            reason = f"{total} trajectories are too few to be worth a build"
        elif self.compile != "off":
            try:
                num_chains = _chains(self.num_chains, potential.work)
                native = NativeTrajectories(potential, num_chains)
                return native, {"compiled": True, "reason": native.note or self.compile}
            except Unsupported as error:
                reason = str(error)
        return eager_trajectories(potential), {"compiled": False, "reason": reason}

    def _nuts(self) -> NUTS:
        return NUTS(
            num_samples=self.num_samples,
            num_warmup=self.num_warmup,
            num_chains=4 if self.num_chains == "auto" else self.num_chains,
            target_accept=self.target_accept,
            full_mass=self.dense_mass is True,
            compile="off",
        )


def _chains(asked: int | Literal["auto"], work: int) -> int:
    """By the elements of a gradient, not by its time: the same choice on every machine."""
    if asked != "auto":
        return asked
    return 32 if work < _CHEAP else 8 if work < _DEAR else 4


def _dense(asked: bool | Literal["auto"], potential: Potential) -> bool:
    return potential.size**2 <= max(potential.work, _SMALL) if asked == "auto" else asked


def _constrained(potential: Potential, draws: torch.Tensor) -> dict[str, torch.Tensor]:
    """Sites (chain, draw, *event) of unconstrained draws (chain, draw, size)."""
    chains, count = draws.shape[:2]
    if count == 0:  # stopped in the warm-up: the shapes, without draws
        one = potential.constrain(draws.new_zeros(1, potential.size))
        return {name: x.new_zeros(chains, 0, *x.shape[1:]) for name, x in one.items()}
    sites = potential.constrain(draws.flatten(0, 1))
    return {name: x.unflatten(0, (chains, count)) for name, x in sites.items()}
