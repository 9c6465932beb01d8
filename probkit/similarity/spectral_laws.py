"""Similarity kernels as exact mixtures of waves: k(x - y) = E cos(w (x - y)).

Six kernels, and every completely monotone function of a distance. With s = norm of x - y:

    gaussian     exp(-s2^2)      w = sqrt(2) z,               z ~ N(0, I)
    exponential  exp(-s2)        w = z / abs(g),              g ~ N(0, 1)  (multivariate Cauchy)
    laplacian    exp(-s1)        w_j independent Cauchy
    cauchy       1 / (1 + s2^2)  w = sqrt(2 t) z,             t ~ Exp(1)
    inverse      1 / (1 + s2)    w = t z / abs(g)
    inverse_l1   1 / (1 + s1)    w_j = t times Cauchy

The last three use 1 / (1 + s) = E exp(-t s), so that no sum of exponentials has to be released
term by term, as arXiv 2403.08917 does. A completely monotone function g(s) = E exp(-t s) is given
by the quantile function of t. A bandwidth h divides every w by h.

Given t, each law is one of three families in w with scale c: N(0, c^2 I), multivariate Cauchy(c),
independent Cauchy(c). Their densities at different bandwidths give importance weights, so that one
release drawn from a mixture of bandwidths answers for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.random import as_generator
from probkit.validation import check_choice

__all__ = ["KERNELS", "CompletelyMonotone", "Law", "law_of", "norms_of", "similarity"]

Family = Literal["normal", "radial_cauchy", "product_cauchy"]
KERNELS: dict[str, tuple[Family, bool]] = {
    "gaussian": ("normal", False),
    "exponential": ("radial_cauchy", False),
    "laplacian": ("product_cauchy", False),
    "cauchy": ("normal", True),
    "inverse": ("radial_cauchy", True),
    "inverse_l1": ("product_cauchy", True),
}
"""name: (family of the waves, whether mixed over t ~ Exp(1))"""


@dataclass(frozen=True)
class CompletelyMonotone:
    """A kernel g(distance) with g(s) = E exp(-t s), given by the law of t >= 0.

    Args:
        distance: "l2sq", "l2" or "l1".
        quantile: quantile function of t, elementwise on a float64 tensor in (0, 1).

    Example:
        >>> inverse = CompletelyMonotone("l2sq", lambda u: -torch.log1p(-u))  # 1 / (1 + s)
        >>> law_of(inverse, dim=3, num=4, seed=0).waves.shape
        torch.Size([4, 3])
    """

    distance: Literal["l2sq", "l2", "l1"]
    quantile: Callable[[Tensor], Tensor]

    @property
    def family(self) -> Family:
        families: dict[str, Family] = {
            "l2sq": "normal",
            "l2": "radial_cauchy",
            "l1": "product_cauchy",
        }
        return families[check_choice("distance", "distance", self.distance, families)]


@dataclass(frozen=True)
class Law:
    """Waves of bandwidth 1 with their latent scales.

    Attributes:
        family: of the waves given their scale.
        waves: (m, d).
        scale: (m,) scale c of the family, from t.
    """

    family: Family
    waves: Tensor
    scale: Tensor

    def log_density_ratio(self, bandwidth: float, drawn: Tensor, waves: Tensor) -> Tensor:
        """(m, H) log of p_h(w) / p_b(w) for h = bandwidth and every b of ``drawn`` (H,)."""
        return self._log_density(bandwidth, waves) - torch.stack(
            [self._log_density(float(b), waves)[:, 0] for b in drawn], -1
        )

    def _log_density(self, bandwidth: float, waves: Tensor) -> Tensor:
        """(m, 1) log density up to a constant that is the same for all bandwidths."""
        c = self.scale / bandwidth
        dim = waves.shape[-1]
        if self.family == "product_cauchy":
            inside = torch.log1p((waves / c[:, None]) ** 2).sum(-1)
            return (-dim * c.log() - inside)[:, None]
        square = (waves**2).sum(-1) / c**2
        if self.family == "normal":
            return (-dim * c.log() - square / 2)[:, None]
        return (-dim * c.log() - (dim + 1) / 2 * torch.log1p(square))[:, None]


def law_of(kernel: str | CompletelyMonotone, *, dim: int, num: int, seed: int) -> Law:
    """Draw m waves of a kernel's spectral law, float64, from a public seed.

    Raises:
        ConfigurationError: an unknown kernel.
    """
    generator = as_generator(seed)
    family, scale = _scales(kernel, num, generator)
    if family == "product_cauchy":
        uniform = torch.rand(num, dim, generator=generator, dtype=torch.float64)
        base = torch.tan(math.pi * (uniform - 0.5))
    else:
        base = torch.randn(num, dim, generator=generator, dtype=torch.float64)
        if family == "radial_cauchy":
            base = base / torch.randn(num, 1, generator=generator, dtype=torch.float64).abs()
    return Law(family, base * scale[:, None], scale)


def norms_of(kernel: str | CompletelyMonotone, *, dim: int, num: int, seed: int) -> Law:
    """Like ``law_of``, but only the norms of m waves of a radial kernel, as waves (m, 1).

    Raises:
        ConfigurationError: an unknown kernel, or one that is not a function of the l2 distance.
    """
    generator = as_generator(seed)
    family, scale = _scales(kernel, num, generator)
    if family == "product_cauchy":
        raise ConfigurationError(
            message(
                "Structured waves need a kernel of the l2 distance",
                where="projection",
                got=kernel,
                remedy='projection="dense"',
            )
        )
    # the norm of a d-dimensional normal vector: the square root of a chi-square with d degrees
    shape = torch.full((num,), dim / 2, dtype=torch.float64)
    norm = torch._standard_gamma(shape, generator=generator).mul(2).sqrt()
    if family == "radial_cauchy":
        norm = norm / torch.randn(num, generator=generator, dtype=torch.float64).abs()
    return Law(family, (norm * scale)[:, None], scale)


def similarity(kernel: str, records: Tensor, points: Tensor, bandwidth: float = 1.0) -> Tensor:
    """Exact kernel values (Q, N) of points against records: for checks and baselines."""
    order = 1.0 if KERNELS[kernel][0] == "product_cauchy" else 2.0
    s = torch.cdist(points, records, p=order) / bandwidth
    if kernel in ("gaussian", "cauchy"):
        s = s**2
    return 1 / (1 + s) if KERNELS[kernel][1] else torch.exp(-s)


def _scales(
    kernel: str | CompletelyMonotone, num: int, generator: torch.Generator
) -> tuple[Family, Tensor]:
    one = torch.ones(num, dtype=torch.float64)
    if isinstance(kernel, CompletelyMonotone):
        uniform = torch.rand(num, generator=generator, dtype=torch.float64).clamp_min(1e-300)
        t, family = kernel.quantile(uniform), kernel.family
    elif kernel in KERNELS:
        family, mixed = KERNELS[kernel]
        t = one
        if mixed:
            t = -torch.log1p(-torch.rand(num, generator=generator, dtype=torch.float64))
    else:
        raise ConfigurationError(
            message(
                "Unknown kernel",
                where="kernel",
                got=repr(kernel),
                expected=", ".join(KERNELS) + ", or a CompletelyMonotone",
            )
        )
    # exp(-t s2^2): normal of variance 2t; exp(-t s): Cauchy of scale t
    return family, torch.sqrt(2 * t) if family == "normal" else t
