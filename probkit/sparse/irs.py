"""Cascaded channels through an intelligent reflecting surface (IRS), as sparse recovery.

User (Q antennas) to IRS (L elements) to base station (R antennas), all uniform linear arrays at
half a wavelength; angles on a grid of b_i = 2 (i - 1) / G - 1, with steering vectors
a(b) = exp(j pi b [0..n-1]) / sqrt n.
With IRS patterns theta_i (columns of T) and pilots X,

    Y = (X' H_1' o H_2) T  (o: column-wise Khatri-Rao),   y = (A_1 x A_2 x A_3) x + e,
    A_1 = T' (A_irs o conj A_irs)', first G columns;  A_2 = X' conj(A_ms);  A_3 = A_bs,

one departure angle each way and ``spread`` adjacent arrival angles with CN(0, 1) gains.
Source: He & Joseph, arXiv 2307.14719, section V-B.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from probkit.linalg.mode_products import mode_products
from probkit.random import Seed, as_generator

__all__ = ["IRSChannel", "simulate_irs", "steering"]


def steering(num_antennas: int, angles: Tensor) -> Tensor:
    """Responses of a uniform linear array, (num_antennas, *angles).

    Args:
        num_antennas: n.
        angles: sines b of the angles, in [-1, 1).

    Example:
        >>> steering(4, torch.zeros(1, dtype=torch.float64)).squeeze(-1).real.tolist()
        [0.5, 0.5, 0.5, 0.5]
    """
    n = torch.arange(num_antennas, dtype=angles.dtype, device=angles.device)
    phase = math.pi * n.reshape(-1, *[1] * angles.dim()) * angles
    return torch.polar(torch.full_like(phase, 1 / math.sqrt(num_antennas)), phase)


@dataclass(frozen=True)
class IRSChannel:
    """A simulated channel with its measurements.

    Attributes:
        dictionaries: A_1 (patterns, G), A_2 (pilots, G), A_3 (base station, G).
        y: (patterns, pilots, base station).
        noise: variance.
        channels: the true H_2 diag(theta_i) H_1, (patterns, base station, user).
        user_grid: conj A_ms, (user, G), to build channels from coefficients.
    """

    dictionaries: list[Tensor]
    y: Tensor
    noise: float
    channels: Tensor
    user_grid: Tensor

    def channel(self, x: Tensor) -> Tensor:
        """Channels of coefficients (G, G, G), (patterns, base station, user)."""
        grids = [self.dictionaries[0], self.user_grid, self.dictionaries[2]]
        return mode_products(x, grids).transpose(-1, -2)

    def nmse(self, x: Tensor) -> float:
        """Normalised mean square error of the channels, averaged over patterns."""
        error = (self.channel(x) - self.channels).abs().square().sum((-2, -1))
        return float((error / self.channels.abs().square().sum((-2, -1))).mean())


def simulate_irs(
    *,
    snr_db: float = 12.0,
    grid_size: int = 18,
    num_user: int = 6,
    num_base: int = 16,
    num_elements: int = 256,
    num_pilots: int = 3,
    num_patterns: int = 6,
    spread: int = 3,
    seed: Seed = 0,
) -> IRSChannel:
    """Draw a channel, pilots, IRS patterns and measurements.

    Args:
        snr_db: mean abs(Y)^2 over the noise variance, in decibels.
        grid_size: G.
        num_user, num_base, num_elements: antennas and IRS elements.
        num_pilots, num_patterns: of the training.
        spread: adjacent arrival angles.
        seed: of everything.

    Example:
        >>> channel = simulate_irs(seed=1)
        >>> tuple(channel.y.shape), [tuple(a.shape) for a in channel.dictionaries]
        ((6, 3, 16), [(6, 18), (3, 18), (16, 18)])
    """
    g = as_generator(seed)
    grid = 2 * torch.arange(grid_size, dtype=torch.float64) / grid_size - 1
    user, base, irs = (steering(n, grid) for n in (num_user, num_base, num_elements))
    signs = torch.randint(0, 2, (2, num_user, num_pilots), generator=g) * 2 - 1
    pilots = torch.complex(signs[0].double(), signs[1].double()) / math.sqrt(2 * num_user)
    flips = torch.randint(0, 2, (num_elements, num_patterns), generator=g) * 2 - 1
    patterns = flips.to(pilots.dtype) / math.sqrt(num_elements)

    def one() -> int:
        return int(torch.randint(0, grid_size, (1,), generator=g))

    def arrivals() -> Tensor:
        first = int(torch.randint(0, grid_size - spread + 1, (1,), generator=g))
        gains = torch.zeros(grid_size, dtype=pilots.dtype)
        gains[first : first + spread] = torch.randn(spread, generator=g, dtype=pilots.dtype)
        return gains

    level = [math.sqrt(n * num_elements / spread) for n in (num_user, num_base)]
    first = level[0] * torch.outer(irs @ arrivals(), user[:, one()].conj())
    second = level[1] * torch.outer(base @ arrivals(), irs[:, one()].conj())
    channels = torch.einsum("rl,lp,lq->prq", second, patterns, first)
    clean = channels @ pilots  # (patterns, base, pilots)
    clean = clean.transpose(-1, -2)
    noise = float(clean.abs().square().mean()) / 10 ** (snr_db / 10)
    e = torch.randn(clean.shape, generator=g, dtype=pilots.dtype)
    # a pair of IRS angles acts through its difference only, and the grid is periodic in it: the
    # first column block of the Khatri-Rao product holds every difference once
    pair = irs * irs[:, :1].conj()
    dictionaries = [patterns.mT @ pair, pilots.mT @ user.conj(), base]
    return IRSChannel(dictionaries, clean + math.sqrt(noise) * e, noise, channels, user.conj())
