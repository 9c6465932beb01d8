"""Fixed-grid solver with exact steps of the noise: no step limit, whatever the fastest rate is.

``dX = b(t, X) dt + s(t, X) dB_hat`` with D coordinates, each with K Ornstein-Uhlenbeck processes
``dY_k = -g_k Y_k dt + u dt + dW`` of its own noise (u: a control, constant over a step)::

    Y' = e^(-gh) Y + u (1 - e^(-gh)) / g + R e,   e ~ N(0, I),  R R' = Q(h)
    X' = X + b(t, X) h + s(t, X) (w'(Y' - Y) + slope h)

The step of Y is exact; X has the error of Euler in its drift only, and is exact for b = 0 and
constant s. (Euler steps of Y need g h < 1/2, so they miss all roughness below two steps.)
For s that depends on X the reading is Ito's in this form; ``heun=True`` averages s over the step
(Stratonovich). Cost: D K^2 a step and path, and the terms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.sde.scan import scan_steps
from probkit.statespace.fractional import MarkovApproxFBM, exact_step

__all__ = ["StepMatrices", "advance", "simulate", "step_matrices", "weighted"]

Term = Callable[[Tensor, Tensor], Tensor]


class StepMatrices(NamedTuple):
    """What a step of one length needs.

    Attributes:
        step: its length h.
        decay: ``e^(-gh)``, (K,).
        response: ``(1 - e^(-gh)) / g``, the effect of a unit control, (K,).
        root: R with ``R R' = Q``, (K, K).
    """

    step: float
    decay: Float[Tensor, " K"]
    response: Float[Tensor, " K"]
    root: Float[Tensor, "K K"]


def step_matrices(rates: Float[Tensor, " K"], step: float) -> StepMatrices:
    """Exact transition over a step; the root by eigenvalues, because Q is nearly singular."""
    decay, noise = exact_step(rates, step)
    values, vectors = torch.linalg.eigh(noise)
    root = vectors * values.clamp_min(0).sqrt()
    return StepMatrices(float(step), decay, -torch.expm1(-rates * step) / rates, root)


def advance(
    x: Float[Tensor, "*batch D"],
    y: Float[Tensor, "*batch D K"],
    slope: Float[Tensor, "*batch D"],
    white: Float[Tensor, "*batch D K"],
    drift: Tensor,
    diffusion: Callable[[Tensor], Tensor],
    weights: Float[Tensor, "*dim K"],
    matrices: StepMatrices,
    control: Tensor | None = None,
    heun: bool = False,
) -> tuple[Tensor, Tensor]:
    """One step from white noise; ``drift`` is b(t, x), ``diffusion`` maps x to s(t, x).

    ``weights`` are (K,), or (D, K) where coordinates have Hurst indices of their own.
    """
    after = y * matrices.decay + white @ matrices.root.mT
    if control is not None:
        after = after + control[..., None] * matrices.response
    moved = weighted(after - y, weights) + slope * matrices.step
    scale = diffusion(x)
    base = x + drift * matrices.step
    if heun:
        scale = (scale + diffusion(base + scale * moved)) / 2
    return base + scale * moved, after


def weighted(modes: Float[Tensor, "*batch D K"], weights: Float[Tensor, "*dim K"]) -> Tensor:
    """``w'Y`` of every coordinate, with weights that are shared or its own."""
    return modes @ weights if weights.dim() == 1 else (modes * weights).sum(-1)


def simulate(
    drift: Term,
    diffusion: Term,
    process: MarkovApproxFBM,
    times: Float[Tensor, " N"],
    start: Float[Tensor, "*batch D"],
    *,
    generator: torch.Generator,
    control: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    heun: bool = False,
    segment: int | None = None,
) -> tuple[Float[Tensor, "*batch N D"], Float[Tensor, " *batch"]]:
    """Paths at increasing times from ``start`` at ``times[0]``, and the path KL of the control.

    Args:
        drift, diffusion: ``b(t, x)`` and ``s(t, x)``, each (*batch, D).
        process: the driving noise; one Hurst index.
        control: ``u(t, x, y)``, (*batch, D); the KL is the integral of u^2 / 2, exact because the
            control is constant over a step. None for the prior.
        heun: read state-dependent diffusion as Stratonovich's.
        segment: steps between two checkpoints of the backward pass (``probkit.sde.scan``).
    """

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=start.dtype, device=start.device)

    rates = process.rates.to(start)
    weights, size = process.weights.to(start), len(process.rates)
    values, vectors = torch.linalg.eigh(process.initial_covariance.to(start))
    y = normal(*start.shape, size) @ (vectors * values.clamp_min(0).sqrt()).mT
    slope = normal(*start.shape) * process.slope_variance.to(start).sqrt()
    lengths = _step_lengths(times)
    known = {h: step_matrices(rates, h) for h in set(lengths)}

    def step(n: int, states: tuple[Tensor, ...], white: Tensor) -> Any:
        x, y, kl = states
        t = times[n]
        u = None if control is None else control(t, x, y)
        if u is not None:
            kl = kl + 0.5 * u.square().sum(-1) * lengths[n]
        terms = (drift(t, x), partial(diffusion, t), weights)
        x, y = advance(x, y, slope, white, *terms, known[lengths[n]], u, heun)
        return (x, y, kl), (x,)

    white = normal(len(lengths), *start.shape, size)
    states = (start, y, start.new_zeros(start.shape[:-1]))
    (_, _, kl), (path,) = scan_steps(step, states, (white,), segment=segment)
    return torch.cat([start[None], path]).movedim(0, -2), kl


def _step_lengths(times: Float[Tensor, " N"]) -> list[float]:
    """Lengths of the steps; those that differ by the rounding of the times alone are one.

    12 decimals, and at least nine digits of the shortest step.
    """
    lengths = times.diff().tolist()
    shortest = min((h for h in lengths if h > 0), default=1.0)
    decimals = max(12, 9 - math.floor(math.log10(shortest)))
    return [round(h, decimals) for h in lengths]
