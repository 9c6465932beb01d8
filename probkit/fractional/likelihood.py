"""Exact log-likelihood of noisy fractional series: one filter for many series and parameters.

State z = (modes, level offset, slope) with diagonal transitions ``a`` and noise covariance ``Q``.
Levels are observed as ``y_n = C'z_n + e``, increments as ``y_n = C'(z_n - z_(n-1)) + e``; both are
``y_n = b'z_(n-1) + (C'xi + e)`` with ``b = a C`` or ``b = (a - 1) C``, so one recursion serves::

    S = b'P b + C'Q C + r,   k = a (P b) + Q C,   v = y - b'm
    m <- a m + k v / S,      P <- a P a' + Q - k k' / S

Levels have a flat prior on their offset, which the first observation turns into a proper one: its
mean is ``y_0`` and its variance ``r`` plus that of the modes. Covariances do not depend on data, so
they are computed once for all series that share times and missing entries.

The scale sigma^2 is either given (r and Q in its unit) or integrated out under ``1 / sigma^2``:
the pieces ``sum log S`` and ``sum v^2 / S`` are returned, and both follow from them.
Cost: K^2 a step and parameter, K a step, parameter and series. Source: J. Durbin and S. J. Koopman,
Time Series Analysis by State Space Methods, chapters 4 and 5.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.fractional.series import Series
from probkit.fractional.system import FractionalSystem

__all__ = [
    "FilterPieces",
    "Step",
    "filter_series",
    "get_loadings",
    "initial_state",
    "make_step",
]


class FilterPieces(NamedTuple):
    """What log-likelihoods are made of, and the state after the last observation.

    ``log_variance`` is the sum over observations of log S, ``quadratic`` that of v^2 / S by series
    and parameter, ``num_observed`` the number of observations that enter (the first level does
    not); ``mean`` and ``covariance`` are those of the last state, in units of sigma.
    """

    log_variance: Float[Tensor, "*batch"]
    quadratic: Float[Tensor, "R *batch"]
    num_observed: int
    mean: Float[Tensor, "R *batch n"]
    covariance: Float[Tensor, "*batch n n"]


def filter_series(system: FractionalSystem, series: Series) -> FilterPieces:
    """Filter all series of one set of times under every parameter of the batch."""
    C, mean, P = initial_state(system, series)
    values = series.values.mT.reshape(series.values.shape[1], -1, *(1 for _ in system.noise.shape))
    log_variance, quadratic = torch.zeros_like(system.noise), torch.zeros_like(mean[..., 0])
    known: dict[float, Step] = {}
    observed = series.observed.tolist()
    for n, gap in enumerate(series.gaps.tolist()):
        if gap not in known:
            known = {gap: make_step(system, C, gap, series.increments)}
        a, Q, QC, CQC, b = known[gap]
        P_next = P * (a[..., :, None] * a[..., None, :]) + Q
        if not observed[n]:
            mean, P = mean * a, P_next
            continue
        seen = gap if series.increments else series.elapsed[n]
        b = torch.cat([b[..., :-1], torch.full_like(b[..., :1], seen)], -1)
        Pb = (P * b[..., None, :]).sum(-1)
        S = (Pb * b).sum(-1) + CQC + system.noise
        k = a * Pb + QC
        v = values[n] - (mean * b).sum(-1)
        log_variance, quadratic = log_variance + torch.log(S), quadratic + v * v / S
        mean = mean * a + k * (v / S)[..., None]
        P = P_next - k[..., :, None] * (k / S[..., None])[..., None, :]
    return FilterPieces(log_variance, quadratic, series.num_observed, mean, P)


def initial_state(system: FractionalSystem, series: Series) -> tuple[Tensor, Tensor, Tensor]:
    """Loadings (modes, offset, slope), mean and covariance before the first step."""
    total = system.rates[..., :, None] + system.rates[..., None, :]
    stationary = 1 / total
    loaded = (stationary * system.loadings[..., None, :]).sum(-1)
    P = torch.nn.functional.pad(stationary, (0, 2, 0, 2))
    C = get_loadings(system, series.increments)
    size = P.shape[-1]
    units = torch.eye(size, dtype=P.dtype, device=P.device)
    offset, slope = units[-2], units[-1]
    P = P + system.slope[..., None, None] * slope[:, None] * slope
    if not series.increments:
        padded = torch.nn.functional.pad(loaded, (0, 2))
        variance = (system.loadings * loaded).sum(-1) + system.noise
        P = P - padded[..., :, None] * offset - offset[:, None] * padded[..., None, :]
        P = P + variance[..., None, None] * offset[:, None] * offset
    start = series.first.reshape(-1, *(1 for _ in range(system.noise.dim() + 1)))
    mean = (start * offset).expand(-1, *system.noise.shape, size)
    return C, mean, P


def get_loadings(system: FractionalSystem, increments: bool) -> Tensor:
    """Loadings of the modes, the offset and the slope; that of the slope depends on the step."""
    zero = torch.zeros_like(system.loadings[..., :1])
    return torch.cat([system.loadings, zero if increments else zero + 1, zero], -1)


class Step(NamedTuple):
    """Decay, noise and loadings of one step; ``b`` without the slope."""

    a: Tensor
    Q: Tensor
    QC: Tensor
    CQC: Tensor
    b: Tensor


def make_step(system: FractionalSystem, C: Tensor, gap: float, increments: bool) -> Step:
    """What depends on the length of a step only."""
    pad = torch.nn.functional.pad
    a = torch.exp(-gap * pad(system.rates, (0, 2)))
    total = system.rates[..., :, None] + system.rates[..., None, :]
    Q = pad(-torch.expm1(-total * gap) / total, (0, 2, 0, 2))
    QC = (Q * C[..., None, :]).sum(-1)
    return Step(a, Q, QC, (QC * C).sum(-1), (a - 1) * C if increments else a * C)
