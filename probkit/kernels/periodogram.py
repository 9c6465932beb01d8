"""The strongest frequencies of values at scattered points, by windowed periodograms.

A Kaiser window (beta = 14) leaves side lobes below 1e-10 of a peak's power, so that a strong
frequency does not hide weak ones. Cost: O(n^2) for each frequency that is looked for.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import DataError, ShapeError, message

__all__ = ["check_scattered", "pursue"]

_KAISER = 14.0


def pursue(
    x: Float[Tensor, " n"], y: Float[Tensor, " n"], num: int
) -> tuple[Float[Tensor, " num"], Float[Tensor, " num"]]:
    """The ``num`` strongest frequencies of values at scattered points, and their powers.

    Each time the sinusoids found so far are fitted by least squares and taken away, because gaps
    between points scatter the power of a strong one over all frequencies.

    Returns:
        Frequencies in cycles per unit, at least half a cycle over the interval apart, up to the
        mean Nyquist frequency; mean squares of their sinusoids, up to the window.

    Example:
        >>> x = torch.linspace(0, 1, 101, dtype=torch.float64)
        >>> y = torch.sin(2 * math.pi * 20 * x) + 0.1 * torch.cos(2 * math.pi * 9 * x)
        >>> pursue(x, y, 2)[0].tolist()
        [20.0, 9.0]
    """
    span = x.max() - x.min()
    window = _window(x)
    f = torch.arange(2 * (len(x) - 1) + 1).to(x) / (4 * span)
    angle = 2 * math.pi * f[:, None] * (x - x.min())
    cosine, sine = angle.cos(), angle.sin()
    free = torch.ones_like(f, dtype=torch.bool)
    rest, chosen, powers = y - y.mean(), [], []
    for _ in range(num):
        values = rest * window
        power = (cosine @ values).square() + (sine @ values).square()
        best = int(torch.where(free, power, -1.0).argmax())
        chosen.append(best)
        powers.append(2 * power[best])
        free[max(0, best - 1) : best + 2] = False
        columns = torch.cat([torch.ones_like(x)[None], cosine[chosen], sine[chosen]]).mT
        # gelsd drops what is dependent: there may be more columns than points
        fitted = torch.linalg.lstsq(columns, y[:, None], driver="gelsd").solution
        rest = y - (columns @ fitted)[:, 0]
    return f[chosen], torch.stack(powers)


def check_scattered(x: Tensor, y: Tensor) -> None:
    """Refuse what has no periodogram.

    Raises:
        ShapeError, DataError: fewer than four points, sizes that differ, values not finite.

    Example:
        >>> check_scattered(torch.arange(4.0), torch.ones(4))
    """
    if x.dim() != 1 or x.shape != y.shape or len(x) < 4:
        raise ShapeError(
            message(
                "A periodogram needs values at points of one dimension",
                where="x, y",
                got=f"{tuple(x.shape)} and {tuple(y.shape)}",
                expected="(n,) both, n >= 4",
            )
        )
    bad = int((~torch.isfinite(x) | ~torch.isfinite(y)).sum())
    if bad or not float(x.max() - x.min()) > 0:
        raise DataError(
            message(
                "A periodogram needs finite values at distinct points",
                where="x, y",
                got=f"{bad} entries that are not finite, over {float(x.max() - x.min())}",
                expected="finite entries over an interval",
            )
        )


def _window(x: Tensor) -> Tensor:
    """Kaiser window times the cell of each point, of sum one."""
    ordered, by_place = x.sort()
    gap = ordered.diff() / 2
    cell = torch.empty_like(x)
    cell[by_place] = torch.cat([gap, gap.new_zeros(1)]) + torch.cat([gap.new_zeros(1), gap])
    place = 2 * (x - ordered[0]) / (ordered[-1] - ordered[0]) - 1
    window = torch.special.i0(_KAISER * (1 - place.square()).clamp(min=0).sqrt()) * cell
    return window / window.sum()
