"""The ELBO of a Pyro model and guide as a pure step function: gradient, Adam, best parameters."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import pyro
import torch
from torch import Tensor

from probkit.errors import ConfigurationError, NotPositiveDefiniteError, message
from probkit.infer.compiled_elbo import CompiledElbo
from probkit.infer.flat_elbo import FlatElbo
from probkit.infer.minibatches import refuse_local_unknowns, subsamples
from probkit.infer.native.lowering import Unsupported
from probkit.infer.protocols import State, StepInfo
from probkit.infer.pyro_data import ModelArguments, ScaleObserved, StreamedArguments
from probkit.infer.seeding import pyro_seed, reseed
from probkit.infer.site_checks import check_guide, check_model, naming_sites
from probkit.infer.updates import adam, descend, natural_gradient, require_natural

__all__ = ["ElboProgram", "soften"]

_BUILD_SECONDS = 1.5
"""eager CPU seconds that a build (half a second to a second and a half) must save"""
_TRIAL_STEPS = 3
"""eager steps whose time decides whether to build"""


class ElboProgram:
    """Steps of stochastic gradient ascent; to be used inside ``param_scope`` and ``pyro_seed``.

    Args:
        model, guide: called with the arguments, or with a random subset of their rows.
        arguments: the data.
        elbo: one of Pyro's ELBO objects.
        batch_size: rows of a minibatch; None for all data in every step.
        window: steps over which the objective is averaged to find the best parameters.
        learning_rate: by the number of the step.
        steps: how many steps there will be at most.
        clip_norm: largest Euclidean norm of the gradient; None for any.
        weight_decay: decoupled (AdamW): parameters shrink by ``learning_rate * weight_decay``.
        natural: plain steps along natural gradients in the place of Adam.
        compile: "on", "off", or "auto": whether steps run in native code; "auto" takes a few eager
            ones and decides by their time. ``route`` says what was done and why.

    The state holds, for every parameter in Pyro's store, ``param.NAME`` (unconstrained),
    ``first.NAME`` and ``second.NAME`` (Adam's moments) and ``best.NAME``; further the objectives
    of the current window, what the best one surely reaches and the number of steps.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        arguments: ModelArguments,
        elbo: Any,
        *,
        batch_size: int | None,
        window: int,
        learning_rate: Callable[[int], float],
        steps: int,
        compile: str = "off",
        clip_norm: float | None = None,
        weight_decay: float = 0.0,
        natural: bool = False,
    ) -> None:
        self.guide = guide
        self._user_model, self._steps, self._compile = model, steps, compile
        self._compiled: CompiledElbo | None = None
        self.route = {"compiled": False, "reason": f'compile="{compile}"'}
        self._arguments, self._elbo = arguments, elbo
        self._window, self._learning_rate = window, learning_rate
        self._clip_norm, self._weight_decay = clip_norm or 0.0, weight_decay
        self._natural = natural
        self._length = self._batch_size = 0
        self._new_rows = True
        self._trial: list[float] = []
        self.model = model
        if batch_size is not None:
            self._length = arguments.common_length()
            self._batch_size = min(batch_size, self._length)
            self.model = ScaleObserved(self._length / self._batch_size)(model)
        if isinstance(arguments, StreamedArguments):
            if batch_size is not None:
                text = "Batches from an iterable have their own size"
                raise ConfigurationError(message(text, where="batch_size", got=batch_size))
            self._compile = "off"
            self.route["reason"] = "batches come from an iterable"
            self._scale = ScaleObserved(1.0)
            self.model = self._scale(model)

    def initialize(self, generator: torch.Generator) -> State:
        """Run guide and model once, which creates the parameters, and return the first state."""
        batch = self.batch(generator)
        with pyro_seed(_draw_seed(generator)):
            self._check(batch)
        parameters = _parameters()
        if not parameters:
            raise ConfigurationError(
                message(
                    "Neither guide nor model has a parameter to optimise",
                    where="guide",
                    remedy="declare parameters with pyro.param, or use an autoguide",
                )
            )
        if self._natural:
            require_natural(self.guide, list(parameters))
        if self._compile == "on":
            self._build()
        state: State = {
            "window_values": torch.zeros(self._window, dtype=torch.float64),
            "surely": torch.tensor(-math.inf, dtype=torch.float64),
            "num_steps": torch.tensor(0),
        }
        for name, parameter in parameters.items():
            value = parameter.detach().clone()
            state[f"param.{name}"] = state[f"best.{name}"] = value
            state[f"first.{name}"] = state[f"second.{name}"] = torch.zeros_like(value)
        return state

    def _check(self, batch: ModelArguments) -> None:
        """Refuse what does not fit together; the guide's first run creates the parameters."""
        if self._batch_size:
            check_model(self._user_model, self._arguments)
            refuse_local_unknowns(self.model, batch, self._batch_size)
        try:
            p = check_guide(self.model, self.guide, batch, self._elbo)
            self._new_rows = bool(self._batch_size) or subsamples(p)
        except (RuntimeError, ValueError, NotImplementedError):
            check_model(self.model, batch)  # an autoguide's own run of the model hides the site
            raise

    def step(self, state: State, generator: torch.Generator) -> tuple[State, StepInfo]:
        """One gradient step; a gradient that is not finite makes the objective NaN.

        In native code all steps up to the end of the window are one call.
        """
        if self._compiled is not None:
            return self._block(self._compiled, state, generator)
        clock = time.process_time()
        args, kwargs = self.batch(generator)
        parameters = _load(state, "param.")
        reseed(_draw_seed(generator))
        # everything was validated once; only rows that no step has seen yet can be new
        with pyro.validation_enabled(False), naming_sites(check_data=self._new_rows) as named:
            loss = self._elbo.loss_and_grads(named(self.model), self.guide, *args, **kwargs)
        _check_names(state)
        # a parameter that this run did not touch has no gradient
        gradients = {
            name: torch.zeros_like(p) if p.grad is None else p.grad
            for name, p in parameters.items()
        }
        total, gradients = self._combine(float(loss), gradients)
        number = int(state["num_steps"]) + 1
        if self._natural:
            values = {name: state[f"param.{name}"].to(g.device) for name, g in gradients.items()}
            gradients = natural_gradient(values, gradients)
        proposal = self.follow(state, self.clipped(gradients), number)
        proposal["num_steps"] = torch.tensor(number)
        finite = all(bool(torch.isfinite(gradient).all()) for gradient in gradients.values())
        objective = -total if finite else math.nan
        evaluated = {name: state[f"param.{name}"] for name in gradients}
        proposal |= self._track_best(state, evaluated, [objective], number)
        if self._compile == "auto" and len(self._trial) < _TRIAL_STEPS:
            self._weigh_build(time.process_time() - clock, number)
        return proposal, StepInfo(objective=objective)

    def _block(
        self, compiled: CompiledElbo, state: State, generator: torch.Generator
    ) -> tuple[State, StepInfo]:
        number = int(state["num_steps"])
        count = min(self._window - number % self._window, self._steps - number)
        rates = torch.tensor(
            [self._learning_rate(number + i) for i in range(count)], dtype=torch.float64
        )
        proposal, losses, failed = compiled.block(
            state,
            rates,
            _draw_seed(generator),
            clip_norm=self._clip_norm,
            weight_decay=self._weight_decay,
        )
        done = len(losses)
        if done == 0 and failed:
            raise NotPositiveDefiniteError(
                message(
                    "A matrix that the model factorises is not positive definite",
                    where=f"step {number}",
                    remedy="add a larger diagonal, use float64, or a smaller learning_rate",
                )
            )
        if done == 0:
            return state, StepInfo(objective=math.nan)
        objectives = (-losses).tolist()
        proposal["num_steps"] = torch.tensor(number + done)
        prefix = "evaluated."
        names = [key.removeprefix(prefix) for key in proposal if key.startswith(prefix)]
        evaluated = {name: proposal.pop(prefix + name) for name in names}
        proposal |= self._track_best(state, evaluated, objectives, number + done)
        return proposal, StepInfo(objective=objectives[-1], objectives=objectives)

    def follow(self, state: State, gradients: dict[str, Tensor], number: int) -> State:
        """Parameters and moments after step ``number`` along gradients, clipped ones."""
        rate = self._learning_rate(number - 1)
        if not self._natural:
            return adam(state, gradients, number, rate, self._weight_decay)
        return descend(state, gradients, rate)

    def clipped(self, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        """The gradients, shortened together to the largest norm."""
        if not self._clip_norm:
            return gradients
        norm = torch.stack([g.double().norm() for g in gradients.values()]).norm()
        shrink = (self._clip_norm / norm.clamp_min(1e-300)).clamp_max(1.0)
        return {name: g * shrink.to(g.dtype) for name, g in gradients.items()}

    def _weigh_build(self, seconds: float, number: int) -> None:
        """After the first eager steps: build the native form if the remaining ones would pay."""
        self._trial.append(seconds)
        if len(self._trial) < _TRIAL_STEPS:
            return
        expected = min(self._trial) * (self._steps - number)
        if expected < _BUILD_SECONDS:
            self.route["reason"] = f"{expected:.1f} s of eager steps to come: not worth a build"
        else:
            self._build()

    def flat(self) -> FlatElbo:
        """The loss as a function of one vector, where it can be run on other tensors.

        Raises:
            Unsupported: it cannot, for the reason in the message.
        """
        if isinstance(self._arguments, StreamedArguments):
            raise Unsupported("batches come from an iterable")
        return FlatElbo(
            self._user_model,
            self.guide,
            self._arguments,
            self._elbo,
            batch_size=self._batch_size,
            parameters=_parameters(),
            natural=self._natural,
        )

    def decide(self, state: State, generator: torch.Generator) -> bool:
        """Whether steps run in native code; "auto" takes its trial steps now and drops them."""
        while self._compile == "auto" and len(self._trial) < _TRIAL_STEPS:
            self.step(state, generator)
        return self._compiled is not None

    def _build(self) -> None:
        """Make the native form, or say why there is none."""
        try:
            clock = time.perf_counter()
            self._compiled = CompiledElbo(self.flat())
            seconds = time.perf_counter() - clock
            self.route = {
                "compiled": True,
                "reason": self._compile,
                "build_seconds": seconds,
                "eager_steps": len(self._trial),
            }
        except Unsupported as error:
            self.route["reason"] = str(error)

    def batch(self, generator: torch.Generator | None = None) -> ModelArguments:
        """All the data, or as many rows as a minibatch has: random ones if a generator is given."""
        if isinstance(self._arguments, StreamedArguments):
            return self._streamed(self._arguments, first=generator is None)
        if not self._batch_size:
            return self._arguments
        if generator is None:
            return self._arguments.rows(torch.arange(self._batch_size))
        order = torch.randperm(self._length, generator=generator)
        return self._arguments.rows(order[: self._batch_size])

    def _streamed(self, arguments: StreamedArguments, *, first: bool) -> ModelArguments:
        assert arguments.batches is not None
        batch = arguments if first else arguments.next_batch()
        self._scale.factor = arguments.batches.num_rows / batch.common_length()
        return batch

    def load(self, state: State) -> None:
        """Put the current parameters into Pyro's store."""
        _load(state, "param.")

    def load_best(self, state: State) -> None:
        """Put the best parameters into Pyro's store (and the modules that own them)."""
        _load(state, "best.")

    @torch.no_grad()
    def estimate(self, num_batches: int, generator: torch.Generator) -> dict[str, float]:
        """ELBO of the current parameters by random minibatches, with its standard error."""
        values = []
        for _ in range(num_batches):
            args, kwargs = self.batch(generator)
            values.append(-float(self._elbo.loss(self.model, self.guide, *args, **kwargs)))
        estimates = torch.tensor(values, dtype=torch.float64)
        error = float(estimates.std()) / math.sqrt(num_batches)
        return {"elbo": float(estimates.mean()), "elbo_se": error}

    def _combine(
        self, loss: float, gradients: dict[str, Tensor]
    ) -> tuple[float, dict[str, Tensor]]:
        """Where parts of one computation, by several processes, are put together."""
        return loss, gradients

    def _track_best(
        self,
        state: State,
        evaluated: dict[str, Tensor],
        objectives: Sequence[float],
        number: int,
    ) -> State:
        """Keep the parameters at the end of a window whose mean is not clearly worse.

        ``evaluated`` are the parameters of the last objective: those of the next step may break
        down. ``objectives`` are those of the latest steps, ``number`` counts these.
        """
        values = state["window_values"].clone()
        first = (number - len(objectives)) % self._window
        values[first : first + len(objectives)] = torch.tensor(objectives, dtype=values.dtype)
        best, surely = {f"best.{n}": state[f"best.{n}"] for n in evaluated}, state["surely"]
        early = number < self._window
        if number % self._window == 0 or early:
            mean, error = float(values.mean()), 0.0
            if self._window > 1:
                error = float(values.std()) / math.sqrt(self._window)
            if early or mean + error >= float(surely):
                best = {f"best.{n}": value for n, value in evaluated.items()}
            if not early:
                # the best of k windows of the same quality lies sqrt(2 log k) errors high by luck
                luck = math.sqrt(2 * math.log(number // self._window))
                surely = torch.maximum(surely, values.new_tensor(mean - luck * error))
        return {"window_values": values, "surely": surely, **best}


def soften(state: State) -> State:
    """Adam at rest, with steps a tenth as long that grow back as its averages forget.

    The first moments become zero and the second ones a hundred times what they were. They start at
    zero, so a first step that breaks down is retried as it is, with other random numbers.
    """
    changed = {k: torch.zeros_like(v) for k, v in state.items() if k.startswith("first.")}
    changed |= {k: 100 * v for k, v in state.items() if k.startswith("second.")}
    return {**state, **changed}


def _parameters() -> dict[str, Tensor]:
    """Unconstrained parameters in Pyro's store, by name."""
    return dict(pyro.get_param_store().named_parameters())


def _load(state: State, prefix: str) -> dict[str, Tensor]:
    """Write a state's parameters into Pyro's store and clear their gradients."""
    parameters = _parameters()
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(state[prefix + name])
            parameter.grad = None
    return parameters


def _check_names(state: State) -> None:
    new = [name for name in _parameters() if f"param.{name}" not in state]
    if new:
        raise ConfigurationError(
            message(
                "A parameter appeared that the first run of guide and model did not have",
                where=f"pyro.param {new}",
                remedy="declare every parameter in every run",
            )
        )


def _draw_seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator))
