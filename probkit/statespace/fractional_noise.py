"""Exact fractional Gaussian noise: autocovariance, and samples by circulant embedding.

``gamma(j) = (|j+1|^2H + |j-1|^2H - 2 |j|^2H) dt^2H / 2``. The embedding of N values in a circulant
of size 2N has non-negative eigenvalues for every H in (0, 1), so the samples are exact.
Source: R. B. Davies and D. S. Harte, Biometrika 74 (1987). Cost: N log N a path.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.random import Seed, as_generator
from probkit.validation import check_whole

__all__ = ["fbm_covariance", "fgn_autocovariance", "sample_fgn"]

_MANY = 2**40


def fgn_autocovariance(
    hurst: float | Tensor, num_steps: int, *, dt: float = 1.0
) -> Float[Tensor, "*batch num_steps"]:
    """Autocovariance of unit-variance fBM's increments at lags 0 ... num_steps - 1.

    Example:
        >>> fgn_autocovariance(0.5, 3).tolist()
        [1.0, 0.0, 0.0]
    """
    H = torch.as_tensor(hurst, dtype=torch.float64)[..., None]
    j = torch.arange(num_steps, dtype=torch.float64, device=H.device)
    power = 2 * H
    values = (j + 1) ** power + (j - 1).abs() ** power - 2 * j**power
    return values * dt**power / 2


def fbm_covariance(
    hurst: float | Tensor, times: Float[Tensor, " N"]
) -> Float[Tensor, "*batch N N"]:
    """Covariance of unit-variance fBM at non-negative times.

    Example:
        >>> fbm_covariance(0.5, torch.tensor([1.0, 2.0], dtype=torch.float64)).tolist()
        [[1.0, 1.0], [1.0, 2.0]]
    """
    power = 2 * torch.as_tensor(hurst, dtype=times.dtype, device=times.device)[..., None, None]
    t, s = times[:, None], times
    return (t**power + s**power - (t - s).abs() ** power) / 2


def sample_fgn(
    hurst: float, num_steps: int, num_paths: int, *, dt: float = 1.0, seed: Seed = 0
) -> Float[Tensor, "num_paths num_steps"]:
    """Exact draws of fractional Gaussian noise; their cumulative sums are fBM.

    Raises:
        ConfigurationError: a Hurst index outside (0, 1), or no step or path.

    Example:
        >>> sample_fgn(0.7, 100, 3).shape
        torch.Size([3, 100])
    """
    if not 0 < hurst < 1:
        raise ConfigurationError(
            message("A Hurst index lies between 0 and 1", where="hurst", got=hurst)
        )
    check_whole("num_steps", num_steps, 1, _MANY)
    check_whole("num_paths", num_paths, 1, _MANY)
    row = fgn_autocovariance(hurst, num_steps + 1, dt=dt)
    circulant = torch.cat([row, row[1:-1].flip(0)])
    eigenvalues = torch.fft.rfft(circulant).real.clamp_min(0)
    white = torch.randn(
        num_paths, len(circulant), generator=as_generator(seed), dtype=torch.float64
    )
    paths = torch.fft.irfft(torch.fft.rfft(white) * eigenvalues.sqrt(), n=len(circulant))
    return paths[:, :num_steps]
