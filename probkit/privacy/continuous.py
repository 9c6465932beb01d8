"""Continuous K-norm noise, in floating point: less noise under pure DP, and less protection.

In a block of dimension p: uniform direction times a radius Gamma(p, b), so that the density is
proportional to exp(-norm(z) / b) and a block that moves by at most l2 loses l2 / b (Hardt & Talwar,
2010). p = 2 is planar Laplace noise. Its variance a coordinate is (p + 1) b^2, against about
4 b^2 of Laplace noise for pairs.

The guarantee holds for real numbers. Floating-point numbers have gaps whose pattern can betray the
noise-free value (Mironov, CCS 2012), which is why every caller must say ``insecure_float_noise``.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from probkit.privacy.entropy import Entropy
from probkit.privacy.mechanism import Noise

__all__ = ["knorm_noise"]


def knorm_noise(statistic: Tensor, noise: Noise, entropy: Entropy) -> Tensor:
    """The statistic plus K-norm noise, float64, flat."""
    seed = [int(word) for word in entropy.words(4)]
    generator = np.random.Generator(np.random.PCG64DXSM(seed))
    draws = np.empty(int(noise.size.sum()))
    ends = np.cumsum(noise.size)
    for size in np.unique(noise.size):
        chosen = np.flatnonzero(noise.size == size)
        places = (ends[chosen] - size)[:, None] + np.arange(size)
        draws[places] = _draw(generator, noise.scale[chosen], (len(chosen), int(size)))
    flat = statistic.reshape(-1).cpu().to(torch.float64)
    return flat + torch.from_numpy(draws)


def _draw(generator: np.random.Generator, scale: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    direction = generator.standard_normal(shape)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return direction * generator.gamma(shape[1], scale)[:, None]
