"""S17: angles between the points of the grid."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import fmean

import torch
from torch import Tensor

from benchmarks.frame import Context, Line, row
from probkit.random import as_generator
from probkit.sparse import GridDictionary, KroneckerSBL, nmse, steering

_ANTENNAS, _PATHS, _GRID = (16, 8), 3, 24


def _channel(seed: int) -> tuple[Tensor, Tensor]:
    """Three paths at continuous angles and the measurements at 20 dB."""
    g = as_generator(seed)
    angles = 2 * torch.rand(2, _PATHS, generator=g, dtype=torch.float64) - 1
    gains = torch.randn(_PATHS, generator=g, dtype=torch.complex128)
    responses = [steering(n, a) for n, a in zip(_ANTENNAS, angles, strict=True)]
    channel = torch.einsum("mp,np,p->mn", *responses, gains)
    noise = float(channel.abs().square().mean()) / 100
    e = torch.randn(channel.shape, generator=g, dtype=channel.dtype)
    return channel, channel + math.sqrt(noise) * e


@row("S17", "off-grid angles")
def angles(context: Context) -> Iterator[Line]:
    grid = 2 * torch.arange(_GRID, dtype=torch.float64) / _GRID - 1
    dictionaries = [GridDictionary(lambda t, n=n: steering(n, t), grid) for n in _ANTENNAS]
    on, off = [], []
    for seed in range(context.size(20, 2)):
        channel, y = _channel(seed)
        found = KroneckerSBL().recover(y, [d.matrix() for d in dictionaries])
        on.append(nmse(found.predict(), channel))
        off.append(nmse(KroneckerSBL().recover_off_grid(y, dictionaries).predict(), channel))
    yield Line("nmse", "mean NMSE of the channel (baseline: on the grid)", fmean(off), fmean(on))
    yield Line("ratio", "on-grid NMSE over off-grid", fmean(on) / fmean(off))
