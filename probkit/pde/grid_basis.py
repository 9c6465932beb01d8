"""Few functions for one side of a grid, learned from the source and the data on the faces.

Columns of the source's unfolding (a random sketch) and of the faces' data are regressed on
harmonics by evidence, which gives the power at every frequency; divided by w^2, with a smooth rest,
it is the prior of u along this side. Then

    Phi S^(1/2) = Q diag(c) V',   W = S^(1/2) V / c,   c_j > 1e-13 c_1

so that Q = Phi W are orthonormal on the grid, W continues them to any point, and Phi^(p) W are
their derivatives. Cost: a few singular value decompositions of (n x features).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.infer.evidence import update_scale
from probkit.pde.harmonics import Harmonics
from probkit.pde.spectrum import Band, SpectralPrior, band_limit, density_scales, prior_scales

__all__ = ["GridBasis", "learn_basis", "sketch", "stack_columns"]

_CUTOFF = 1e-13
_REGRESSION_NOISE = 1e-20
_FLOOR = 1e-22
_SMOOTH_PART = 1e-6
_LARGEST_SHARE = 0.8


@dataclass(frozen=True)
class GridBasis:
    """Functions of one side.

    Attributes:
        side: the harmonics that they are made of.
        x: (n,) grid.
        values: (n, r) values Q on the grid, orthonormal there for exact data.
        coefficients: (m, r) W.
        sizes: (r,) prior standard deviations c of the functions.
        band: what the source shows along this side.
    """

    side: Harmonics
    x: Float[Tensor, " n"]
    values: Float[Tensor, "n r"]
    coefficients: Float[Tensor, "m r"]
    sizes: Float[Tensor, " r"]
    band: Band

    def at(self, x: Float[Tensor, " q"], order: int = 0) -> Float[Tensor, "q r"]:
        """Values, or derivatives, at any points."""
        return self.side.rows(x, order) @ self.coefficients


def learn_basis(
    columns: Float[Tensor, "n k"],
    x: Float[Tensor, " n"],
    bounds: tuple[float, float],
    *,
    extension: float,
    num_sweeps: int,
    limit: float | None = None,
    prior: SpectralPrior | None = None,
    noise: float = 0.0,
) -> GridBasis:
    """The basis of a side from columns along it (of comparable size).

    Args:
        columns: along the side.
        x: grid.
        bounds: of the side.
        extension: period of the harmonics over the length of the side.
        num_sweeps: evidence updates.
        limit: highest frequency; None to choose it from the columns.
        prior: a kernel to take the spectrum from; None to learn it.
        noise: standard deviation of the noise in the columns.
    """
    low, high = bounds
    length = high - low
    band = band_limit(columns, x, length, len(x), noise=noise)
    if limit is not None:
        band = band._replace(limit=limit)
    period = extension * length
    side = Harmonics(low, length, period, max(math.ceil(band.limit * period), 2))
    features = side.rows(x)
    scale = (
        density_scales(side, prior)
        if prior is not None
        else _learned_scales(side, features, columns, x, num_sweeps, noise)
    )
    # with noise the prior counts also where the grid does not see it: functions on a finer grid
    seen = (
        features
        if noise == 0
        else side.rows(torch.linspace(low, high, 2 * side.num_features).to(x))
    )
    left, singular, right = torch.linalg.svd(seen * scale.sqrt(), full_matrices=False)
    rank = int((singular > _CUTOFF * singular[0]).sum())
    rank = min(rank, int(_LARGEST_SHARE * len(x))) if noise == 0 else rank
    coefficients = scale.sqrt()[:, None] * right[:rank].mT / singular[:rank]
    values = left[:, :rank] if noise == 0 else features @ coefficients
    return GridBasis(side, x, values, coefficients, singular[:rank], band)


def _learned_scales(
    side: Harmonics, features: Tensor, columns: Tensor, x: Tensor, num_sweeps: int, noise: float
) -> Tensor:
    """Prior variances of u from the power of the columns."""
    # 4 / L is the bandwidth of what the source does not show
    speed = 2 * math.pi * side.frequencies().clamp(min=0.25 / side.length)
    ratio = speed / speed.min()
    scale = prior_scales(side, columns, x, 0) + 1e-3 / (1 + ratio**4)
    for _ in range(num_sweeps if noise == 0 else 0):
        scale = _sweep(features, columns, scale)
    found = scale / speed.square()
    return found / found.max() + _SMOOTH_PART / (1 + ratio**6)


def sketch(
    unfolded: Float[Tensor, "n k"], generator: torch.Generator, num: int = 12
) -> Float[Tensor, "n num"]:
    """Random combinations of columns, which span what the columns span."""
    if unfolded.shape[1] <= num:
        return unfolded
    mix = torch.randn(unfolded.shape[1], num, generator=generator, dtype=unfolded.dtype)
    return unfolded @ mix / math.sqrt(unfolded.shape[1])


def stack_columns(parts: Sequence[Tensor]) -> Tensor:
    """Columns of several origins, each origin scaled to a largest absolute value of one."""
    scaled = [part / part.abs().max() for part in parts if float(part.abs().max()) > 0]
    return torch.cat(scaled, 1) if scaled else torch.ones_like(parts[0][:, :1])


def _sweep(features: Tensor, columns: Tensor, scale: Tensor) -> Tensor:
    """One evidence update of prior variances shared by all columns."""
    left, singular, right = torch.linalg.svd(features * scale.sqrt(), full_matrices=False)
    noise = _REGRESSION_NOISE * singular[0] ** 2
    total = singular.square() + noise
    mean = right.mT @ ((singular / total)[:, None] * (left.mT @ columns))
    share = right.mT.square() @ (singular.square() / total)
    moment = scale * mean.square().mean(1)
    new = update_scale(scale, moment, scale * (1 - share), rule="mackay", floor=_FLOOR)
    return new / new.max()
