"""Simulation-based calibration: does an engine return the posterior of a model?

Simulate unknowns z* from the prior and data from the model, fit, and rank z* among L posterior
draws. If the engine is right, ranks are uniform on 0..L for every scalar unknown, and central
intervals cover the truth as often as they say; a hump in the histogram means posteriors that are
too wide, a bowl too narrow, a slope biased. Simulations are the steps of the one loop, so that a
long calibration shows progress, checkpoints, and goes on where it was interrupted.

Source: Talts, Betancourt, Simpson, Vehtari & Gelman, arXiv:1804.06788. Cost: one fit for each
simulation, or for ``batch`` of them where the model takes many data sets at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.infer.calibration import Calibration
from probkit.infer.callbacks import Callback
from probkit.infer.engine import Run, model_settings
from probkit.infer.fitting import fit
from probkit.infer.posterior import DrawsPosterior
from probkit.infer.protocols import State, StepInfo
from probkit.infer.result import FitResult
from probkit.random import Seed, spawn_seeds

__all__ = ["Simulator", "calibrate"]

Simulator = Callable[[torch.Generator], tuple[dict[str, Tensor], Any]]


def calibrate(
    model: Any,
    simulator: Simulator,
    engine: Any,
    *,
    num_simulations: int = 500,
    num_ranks: int = 99,
    batch: int = 1,
    seed: Seed = 0,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
    callbacks: Sequence[Callback] = (),
) -> Calibration:
    """Calibrate an engine on data simulated from the model.

    Args:
        model: as given to ``probkit.fit``.
        simulator: called with a generator, returns the true unknowns by site and the data for
            ``fit``; it must draw from the very prior and likelihood of the model.
        engine: an engine, or a function ``(data, seed) -> FitResult`` (then ``model`` is None).
            Take posterior draws that are nearly independent: at least ``num_ranks`` of them.
        num_simulations: fits, or data sets in all with ``batch``.
        num_ranks: L, posterior draws that a truth is ranked among; 99 suits 50 and 90 % intervals.
        batch: data sets in one fit. With more than one, the tensors of so many simulations are
            stacked along a new first dimension, and the model must keep that dimension in its
            sites: then one fit serves many simulations.
        seed: of everything.
        checkpoint: directory for the checkpoint, written after every fit; None for none.
        resume: go on from that checkpoint if it exists.
        progress: show a progress bar.
        callbacks: called after every fit.

    Raises:
        ConfigurationError: sizes that do not fit, or a truth whose site the posterior lacks.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> from probkit.infer import Laplace
        >>> def model(y):
        ...     mu = pyro.sample("mu", dist.Normal(torch.zeros((), dtype=y.dtype), 1.0))
        ...     with pyro.plate("data", len(y)):
        ...         pyro.sample("y", dist.Normal(mu, 1.0), obs=y)
        >>> def simulator(generator):
        ...     draw = torch.randn(6, generator=generator, dtype=torch.float64)
        ...     return {"mu": draw[0]}, draw[0] + draw[1:]
        >>> engine = Laplace(num_posterior_samples=99, num_diagnostic_samples=0)
        >>> found = calibrate(model, simulator, engine, num_simulations=20)
        >>> found.num_simulations, 0.5 < found.coverage(0.9) <= 1
        (20, True)
    """
    _check_sizes(num_simulations, num_ranks, batch)
    settings = {
        **{"num_ranks": num_ranks, "batch": batch, "model": model_settings(model)},
        **{"simulator": model_settings(simulator), "engine_settings": repr(engine)},
    }
    run = Run(
        engine="calibrate",
        settings=settings,
        limits=(),
        seed=seed,
        data="",
        reason="asked for",
        checkpoint=checkpoint,
        resume=resume,
        callbacks=callbacks,
        progress=progress,
        every=1,
    )
    rounds = _Rounds(model, simulator, engine, num_ranks, batch)
    outcome = run.loop(rounds.step, lambda _: {}, num_simulations // batch)
    state = outcome.state
    return Calibration(
        {k.removeprefix(_RANKS): v for k, v in state.items() if k.startswith(_RANKS)},
        num_ranks,
        int(state.get("num_failed", torch.tensor(0))),
        outcome.status,
        run.record(state),
    )


_RANKS = "ranks."


class _Rounds:
    """Steps of a calibration: simulate, fit, rank."""

    def __init__(
        self, model: Any, simulator: Simulator, engine: Any, num_ranks: int, batch: int
    ) -> None:
        self._model, self._simulator, self._engine = model, simulator, engine
        self._num_ranks, self._batch = num_ranks, batch

    def step(self, state: State, generator: torch.Generator) -> tuple[State, StepInfo]:
        simulated = [self._simulator(generator) for _ in range(self._batch)]
        truth, data = simulated[0] if self._batch == 1 else _stacked(simulated)
        result = self._fit(data, spawn_seeds(generator, 1)[0])
        failed = int(state.get("num_failed", torch.tensor(0)))
        if not result.status.ok:
            ranks = {
                n: torch.full((self._batch, v.numel() // self._batch), -1) for n, v in truth.items()
            }
            failed += self._batch
        else:
            ranks = self._ranks(result, truth, generator)
        before = {k: v for k, v in state.items() if k.startswith(_RANKS)}
        proposal = {
            _RANKS + name: torch.cat([before[_RANKS + name], value]) if before else value
            for name, value in ranks.items()
        }
        proposal["num_failed"] = torch.tensor(failed)
        # the loop's objective has no meaning here; the failures are the figure to watch
        return proposal, StepInfo(objective=-float(failed))

    def _fit(self, data: Any, seed: int) -> FitResult:
        if callable(self._engine):
            found: FitResult = self._engine(data, seed)
            return found
        return fit(self._model, data, engine=self._engine, seed=seed)

    def _ranks(
        self, result: FitResult, truth: dict[str, Tensor], generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Ranks (batch, scalar) by site; ties are broken at random."""
        draws = self._draws(result, generator)
        found = {}
        for name, value in truth.items():
            if name not in draws or draws[name].shape[1:] != value.shape:
                raise ConfigurationError(
                    message(
                        "The simulator's truth has no counterpart in the posterior",
                        where=f"site {name!r}",
                        got=tuple(value.shape),
                        expected={k: tuple(v.shape[1:]) for k, v in draws.items()},
                        remedy="let the simulator return unknowns named and shaped as the model's",
                    )
                )
            below = (draws[name] < value).sum(0)
            equal = (draws[name] == value).sum(0)
            unit = torch.rand(value.shape, generator=generator, dtype=torch.float64)
            rank = below.cpu() + (unit * (equal.cpu() + 1)).floor().long()
            found[name] = rank.reshape(self._batch, -1)
        return found

    def _draws(self, result: FitResult, generator: torch.Generator) -> dict[str, Tensor]:
        """``num_ranks`` draws, evenly spaced over the chains, so that they depend least."""
        posterior = result.posterior
        if not isinstance(posterior, DrawsPosterior):
            return posterior.sample(self._num_ranks, generator)
        total = posterior.num_chains * posterior.num_draws
        if total < self._num_ranks:
            raise ConfigurationError(
                message(
                    "There are fewer posterior draws than ranks",
                    where="num_ranks",
                    got=f"{total} draws",
                    expected=f">= {self._num_ranks}",
                    remedy="draw more, or rank among fewer",
                )
            )
        index = torch.linspace(0, total - 1, self._num_ranks).round().long()
        return {name: value.flatten(0, 1)[index] for name, value in posterior.draws.items()}


def _stacked(simulated: list[tuple[dict[str, Tensor], Any]]) -> tuple[dict[str, Tensor], Any]:
    """Truths and data of many simulations along a new first dimension."""
    truths = {
        name: torch.stack([truth[name] for truth, _ in simulated]) for name in simulated[0][0]
    }
    first = simulated[0][1]
    if isinstance(first, dict):
        return truths, {k: _join([data[k] for _, data in simulated]) for k in first}
    if isinstance(first, tuple | list):
        return truths, tuple(_join([data[i] for _, data in simulated]) for i in range(len(first)))
    return truths, _join([data for _, data in simulated])


def _join(values: list[Any]) -> Any:
    return torch.stack(values) if isinstance(values[0], Tensor) else values[0]


def _check_sizes(num_simulations: int, num_ranks: int, batch: int) -> None:
    if min(num_simulations, num_ranks, batch) < 1 or num_simulations % batch:
        raise ConfigurationError(
            message(
                "Simulations must come in whole batches",
                where="num_simulations, num_ranks, batch",
                got=(num_simulations, num_ranks, batch),
                expected="positive, and num_simulations a multiple of batch",
            )
        )
