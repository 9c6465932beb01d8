"""The best of several starting points of an optimisation, by a short run from each.

Where steps run in native code, the runs follow one another: a step costs microseconds. Where they
run eagerly, all starts are one batch: loss and gradient are mapped over the parameter vectors
(``torch.func.vmap``), so that S starts cost little more than the Python of one. A model that
cannot be mapped is run start by start, and the reason is recorded.

Cost: ``num_starts * length`` gradients.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import pyro
import torch
from torch import Tensor
from torch.func import vmap

from probkit.errors import NumericalError
from probkit.infer.elbo import ElboProgram
from probkit.infer.mapped_noise import FreshNoise
from probkit.infer.native.lowering import Unsupported
from probkit.infer.protocols import State
from probkit.infer.seeding import reseed

__all__ = ["best_start"]

_PARTS = ("param", "first", "second")


def best_start(
    program: ElboProgram,
    initial: State,
    another: Callable[[], State],
    num_starts: int,
    length: int,
    generator: torch.Generator,
) -> State:
    """A first state of a program with the parameters of the best short run.

    How the runs were made is recorded in ``program.route["starts"]``.

    Args:
        program: whose steps are run.
        initial: the first start's state; also what the best one's counters begin with.
        another: makes the other starts' first states.
        num_starts: how many there are; one is taken as it is.
        length: steps from each; starts compare by the average of the second half.
        generator: of the steps.
    """
    if num_starts == 1:
        return initial
    states = [initial, *(another() for _ in range(num_starts - 1))]
    best, route = None, "one after another, in native code"
    if not program.decide(initial, generator):
        try:
            best = _mapped(program, states, length, generator)
            route = f"one batch of {num_starts}"
        except (Unsupported, RuntimeError, ValueError, NotImplementedError, UserWarning) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            route = f"one after another: {first}"
    if best is None:
        best = _one_by_one(program, states, length, generator)
    program.route["starts"] = route
    fresh = {f"best.{name}": value for name, value in best.items()}
    found = {f"param.{name}": value for name, value in best.items()}
    moments = {
        k: torch.zeros_like(v) for k, v in initial.items() if k.startswith(("first.", "second."))
    }
    return {**initial, **found, **fresh, **moments}


def _mapped(
    program: ElboProgram, states: Sequence[State], length: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """All starts as one batch; a start that breaks down stays where it is and cannot win."""
    flat = program.flat()

    def one(values: Tensor, *data: Tensor) -> tuple[Tensor, Tensor]:
        loss, gradient = flat(values, *data)
        return loss, program.clipped({"flat": gradient})["flat"]

    at_once = vmap(one, in_dims=(0, *[None] * len(flat.data)), randomness="different")
    batch = {
        f"{part}.flat": torch.stack(
            [flat.joined({name: s[f"{part}.{name}"] for name in flat.names}) for s in states]
        )
        for part in _PARTS
    }
    alive = torch.ones(len(states), dtype=torch.bool, device=batch["param.flat"].device)
    total = torch.zeros(len(states), dtype=torch.float64, device=alive.device)
    with pyro.validation_enabled(False), warnings.catch_warnings(), FreshNoise():
        warnings.simplefilter("error", UserWarning)  # vmap's slow fallback, one by one inside
        for number in range(1, length + 1):
            reseed(int(torch.randint(2**62, (), generator=generator)))
            losses, gradients = at_once(batch["param.flat"], *flat.data)
            alive = alive & losses.isfinite() & gradients.isfinite().all(1)
            if number > length // 2:
                total -= losses.detach().to(total.dtype)
            new = program.follow(batch, {"flat": gradients.detach()}, number)
            batch = {k: torch.where(alive[:, None], v, batch[k]) for k, v in new.items()}
    winner = int(torch.where(alive, total, -math.inf).argmax())
    return {k: v.clone() for k, v in flat.parts(batch["param.flat"][winner]).items()}


def _one_by_one(
    program: ElboProgram, states: Sequence[State], length: int, generator: torch.Generator
) -> dict[str, Tensor]:
    best, best_value = states[0], -math.inf
    for start in states:
        state, values = start, list[float]()
        try:
            while len(values) < length:
                state, info = program.step(state, generator)
                values.extend(info.objectives or [info.objective])
        except NumericalError:
            continue  # a start that breaks down is not the best one
        tail = values[len(values) // 2 :]
        value = sum(tail) / len(tail)
        if value > best_value:
            best, best_value = state, value
    return {k.removeprefix("param."): v for k, v in best.items() if k.startswith("param.")}
