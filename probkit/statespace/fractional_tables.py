"""Weights that reproduce the law of fractional noise, from tables: no fit, no solve at run time.

``w(H)`` is a Chebyshev polynomial of degree 19 on fixed rates, one table for every horizon of
2^7 ... 2^14 steps (``scripts/fractional_tables.py`` fits them). Rates and weights are in units of
one step; the scale is that of Mandelbrot and Van Ness. Power below the lowest rate goes to a static
random slope, whose variance makes up the variance of the increments (:func:`slope_variance`).
Cost: 20 K multiplications a Hurst index.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from probkit.errors import ConfigurationError, message

__all__ = [
    "HURST_RANGE",
    "TABLE_STEPS",
    "law_table",
    "law_weights",
    "mvn_variance",
    "slope_variance",
    "table_steps",
]

HURST_RANGE = (0.03, 0.97)
TABLE_STEPS = tuple(2**exponent for exponent in range(7, 15))
_PATH = Path(__file__).with_name("fractional_law.safetensors")
_CENTRE, _RADIUS = sum(HURST_RANGE) / 2, (HURST_RANGE[1] - HURST_RANGE[0]) / 2


def table_steps(num_steps: int) -> int:
    """The smallest tabulated horizon of at least ``num_steps`` steps, or the largest one.

    Example:
        >>> table_steps(1000), table_steps(10**6)
        (1024, 16384)
    """
    return next((size for size in TABLE_STEPS if size >= num_steps), TABLE_STEPS[-1])


def law_weights(
    hurst: Float[Tensor, "*batch"], num_steps: int
) -> tuple[Float[Tensor, " K"], Float[Tensor, "*batch K"]]:
    """Rates and weights for series of up to ``num_steps`` steps, differentiable in ``hurst``.

    Args:
        hurst: in [.03, .97], float64.
        num_steps: length of the series; the next larger table is taken.

    Returns:
        Rates (K,) per step and weights (..., K).

    Raises:
        ConfigurationError: a Hurst index outside the table, or NaN.

    Example:
        >>> rates, weights = law_weights(torch.tensor(0.3, dtype=torch.float64), 1000)
        >>> rates.shape, weights.shape
        (torch.Size([8]), torch.Size([8]))
    """
    low, high = HURST_RANGE
    inside = (hurst >= low) & (hurst <= high)
    if not bool(inside.all()):
        raise ConfigurationError(
            message(
                "The Hurst index is outside the table",
                where="hurst",
                got=[float(value) for value in hurst.detach().reshape(-1)[~inside.reshape(-1)][:3]],
                expected=f"in [{low}, {high}]",
                remedy='use weights="l2" outside this range',
            )
        )
    return law_weights_unchecked(hurst, num_steps)


def law_weights_unchecked(hurst: Tensor, num_steps: int) -> tuple[Tensor, Tensor]:
    """:func:`law_weights` without a look at the values, for traced and mapped code."""
    rates, coefficients = (t.to(hurst.device) for t in law_table(num_steps))
    x = (hurst - _CENTRE) / _RADIUS
    terms = [torch.ones_like(x), x]
    for _ in range(coefficients.shape[0] - 2):
        terms.append(2 * x * terms[-1] - terms[-2])
    return rates, torch.stack(terms, -1) @ coefficients


def law_table(num_steps: int) -> tuple[Float[Tensor, " K"], Float[Tensor, "terms K"]]:
    """Rates, and the coefficients of the Chebyshev polynomials on ``HURST_RANGE``."""
    return _tables()[table_steps(num_steps)]


def mvn_variance(hurst: Tensor) -> Tensor:
    """``V_H = 1 / (Gamma(2H + 1) sin(pi H))``, the variance at t = 1 of Mandelbrot-Van Ness fBM."""
    return torch.exp(-torch.lgamma(2 * hurst + 1)) / torch.sin(torch.pi * hurst)


def slope_variance(hurst: Tensor, rates: Tensor, weights: Tensor) -> Tensor:
    """What the increments over one step lack, ``V_H - E[(dB_hat)^2]``, where memory is long.

    Below H = .55 hardly any power lies under the lowest rate, and the difference is the error of
    the fit at high frequencies: the slope fades out between .65 and .55.
    """
    gram = weights[..., :, None] * weights[..., None, :] / (rates[:, None] + rates)
    approximate = -2 * (torch.expm1(-rates) * gram.sum(-1)).sum(-1)
    x = ((hurst - 0.55) / 0.1).clamp(0, 1)
    return (mvn_variance(hurst) - approximate).clamp_min(0) * x * x * (3 - 2 * x)


@cache
def _tables() -> dict[int, tuple[Tensor, Tensor]]:
    table = load_file(_PATH)
    return {size: (table[f"rates.{size}"], table[f"coefficients.{size}"]) for size in TABLE_STEPS}
