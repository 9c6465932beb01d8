"""Draws of observations given parameters: futures of a series, and series like it.

Both are walks of the state-space model of ``likelihood``, one for each parameter draw: from the
filtered state after the data, or from the state that the first level leaves open. Steps are exact.
Cost: K^2 a step and draw, K^3 a distinct length of a step and draw.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.fractional.forecast import EndState
from probkit.fractional.likelihood import Step, get_loadings, initial_state, make_step
from probkit.fractional.series import Series
from probkit.fractional.system import FractionalSystem

__all__ = ["sample_futures", "sample_series"]

_KEPT = 64
"""distinct steps whose noise is kept decomposed"""


def sample_futures(
    system: FractionalSystem,
    scale: Float[Tensor, " S"],
    end: EndState,
    gaps: Iterable[float],
    generator: torch.Generator,
) -> Float[Tensor, "T S"]:
    """Observations after each gap (in steps) that follows the data, jointly, one path a draw."""
    state = _draw_state(end.mean, end.covariance, scale, generator)
    elapsed, steps = end.elapsed, []
    for gap in gaps:
        elapsed += gap
        steps.append((gap, gap if end.increments else elapsed))
    return _walk(system, scale, end.increments, state, steps, generator)


def sample_series(
    system: FractionalSystem,
    scale: Float[Tensor, " S"],
    series: Series,
    generator: torch.Generator,
) -> Float[Tensor, "T S"]:
    """Series at the times of the data, given its first level, one a draw."""
    _, mean, covariance = initial_state(system, series)
    state = _draw_state(mean[0], covariance, scale, generator)
    gaps = series.gaps.tolist()
    seen = gaps if series.increments else series.elapsed
    return _walk(system, scale, series.increments, state, zip(gaps, seen, strict=True), generator)


def _walk(
    system: FractionalSystem,
    scale: Tensor,
    increments: bool,
    state: Tensor,
    steps: Iterable[tuple[float, float]],
    generator: torch.Generator,
) -> Tensor:
    """``steps`` are lengths with the loading of the slope on the observation after them."""
    C = get_loadings(system, increments)
    known: dict[float, tuple[Step, Tensor]] = {}
    values = []
    for gap, seen in steps:
        if gap not in known:
            if len(known) >= _KEPT:
                known.clear()
            step = make_step(system, C, gap, increments)
            known[gap] = (step, _root(step.Q) * scale[:, None, None])
        step, root = known[gap]
        moved = (root @ _normal(state.shape, generator)[..., None])[..., 0]
        b = torch.cat([step.b[..., :-1], torch.full_like(step.b[..., :1], seen)], -1)
        noise = system.noise.sqrt() * scale * _normal(scale.shape, generator)
        values.append((state * b).sum(-1) + (moved * C).sum(-1) + noise)
        state = state * step.a + moved
    return torch.stack(values)


def _draw_state(
    mean: Tensor, covariance: Tensor, scale: Tensor, generator: torch.Generator
) -> Tensor:
    spread = (_root(covariance) @ _normal(mean.shape, generator)[..., None])[..., 0]
    return mean + scale[:, None] * spread


def _normal(shape: torch.Size, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _root(covariance: Tensor) -> Tensor:
    """A square root by eigenvalues: these matrices are semidefinite to rounding."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp_min(0).sqrt()[..., None, :]
