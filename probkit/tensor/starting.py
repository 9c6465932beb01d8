"""Random smooth curves that fits of a functional Tucker model start from."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["smooth_draws"]


def smooth_draws(grid: Tensor, rank: int, structure: str, generator: torch.Generator) -> Tensor:
    """Random sums of a few low-frequency sines on the grid, (D, R)."""
    frequency = torch.arange(1, 5, dtype=grid.dtype)
    device = generator.device
    amplitude = torch.randn(4, rank, generator=generator, dtype=grid.dtype, device=device)
    phase = torch.rand(4, rank, generator=generator, dtype=grid.dtype, device=device)
    level = torch.randn(rank, generator=generator, dtype=grid.dtype, device=device)
    angle = math.pi * grid.cpu()[:, None, None] * frequency[:, None] + 2 * math.pi * phase.cpu()
    waves = (torch.sin(angle) * (amplitude.cpu() / frequency[:, None])).sum(1)
    if structure == "tucker":
        return 1 + 0.5 * waves
    return 0.6 * level.cpu() + 0.6 * waves
