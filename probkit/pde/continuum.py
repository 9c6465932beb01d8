"""Layers and peaks: a source without lines, whose spectrum falls off exponentially.

The spectrum of a function analytic in a strip decays as exp(-c f / f_max), and its tail cannot be
read off a windowed periodogram. Where the source has power over a good part of the band, the decay
c is chosen by the evidence of all rows, the amplitude profiled out:

    log E = -(n / 2) log(sum_k a_k^2 / (s_k^2 + v)) - (1 / 2) sum_k log(s_k^2 + v),   a = U'y

over the singular values s_k of the whitened rows, v at rounding. Cost: one decomposition a value.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.pde.harmonics import Harmonics

__all__ = ["choose_decay", "is_continuum"]

_DECAYS = (30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0)
_BROAD = 0.4
_ROUNDING = 1e-14


def is_continuum(visible: float) -> bool:
    """Whether the source's power fills so much of the band that it has no lines."""
    return visible > _BROAD


def choose_decay(
    rows: Float[Tensor, "n m"],
    target: Float[Tensor, " n"],
    side: Harmonics,
    nyquist: float,
    present: Float[Tensor, " m"],
) -> Float[Tensor, " m"] | None:
    """Prior variances of the decay with the largest evidence; None if those at hand have more.

    Args:
        rows: weighed rows of equation and conditions.
        target: what they should give.
        side: the harmonics.
        nyquist: f_max, half the sampling rate.
        present: prior variances at hand.
    """
    best, chosen = _evidence(rows, target, present), None
    for decay in _DECAYS:
        scale = torch.exp(-decay * side.frequencies() / nyquist)
        value = _evidence(rows, target, scale)
        if value > best:
            best, chosen = value, scale
    return chosen


def _evidence(rows: Tensor, target: Tensor, scale: Tensor) -> float:
    left, singular, _ = torch.linalg.svd(rows * scale.sqrt(), full_matrices=False)
    total = singular.square() + (_ROUNDING * singular[0]).square()
    along = left.mT @ target
    return float(-len(target) / 2 * (along.square() / total).sum().log() - total.log().sum() / 2)
