"""The Pyro model of a PDE with unknown coefficients, in weight space.

    theta ~ prior,   x_j ~ N(0, a^2 s_j),   u = sum_j x_j phi_j
    F_theta[u] = f + e_f,   B u = g,   u(x_n) = y_n + e_u

A linear equation leaves x Gaussian given theta, and it is integrated out: with the rows B of all
that is given, divided by their noises and times the prior's standard deviations, and M' = [B' I],

    [M y] = Q R,   log p(y given theta) = -r^2 / 2 - sum_j log abs R_jj - sum_n log v_n / 2 + const

r being the last entry of R: the condition number is not squared, and no jitter is needed. Unknowns
are then few, whatever the number of points. A semilinear equation keeps the weights: linearised by
Gauss-Newton steps at a first guess of theta, it gives their mode and R, and the site w stands for

    x = s_0^(1/2) (z_0 + R^-1 w),

which the data leave near N(0, I). Coefficients, noises, the amplitude a and the parameters of a
mixture spectrum that have priors are all sites. Cost: one QR decomposition of (rows x features) an
evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor

from probkit.distributions import Centered
from probkit.kernels import SpectralMixtureKernel
from probkit.pde.harmonics import Harmonics
from probkit.pde.inverse_rows import InverseRows
from probkit.pde.newton import pointwise
from probkit.pde.problem import PDE, Unknown
from probkit.pde.spectrum import density_scales

__all__ = ["WEIGHTS", "CoefficientModel"]

WEIGHTS = "weights_of_u"
"""name of the site of the weights, where the equation is not linear"""

_PARTS = ("weights", "frequencies", "lengthscales")
_WIDE = 2.0
_STEPS = 8
_LEAST = 1e-100


class CoefficientModel:
    """A Pyro model without arguments; made by :meth:`probkit.pde.InverseSolver.model`.

    Args:
        unknowns: coefficients and noises.
        rows: of the problem.
        sides: the features.
        scale: (m,) prior variances of the weights, up to the amplitude; None for those of kernel.
        kernel: a mixture kernel for every side; its parameters with priors are unknowns too.
        amplitude: middle of the prior of the amplitude; None where it is known to be one.
        nonlinear: the equation, if it has a nonlinear part, with the rows of its arguments.
    """

    def __init__(
        self,
        unknowns: Sequence[Unknown],
        rows: InverseRows,
        sides: Sequence[Harmonics],
        *,
        scale: Float[Tensor, " m"] | None = None,
        kernel: SpectralMixtureKernel | None = None,
        amplitude: float | None = None,
        nonlinear: tuple[PDE, list[Tensor]] | None = None,
    ) -> None:
        self.rows, self.sides, self.nonlinear = rows, list(sides), nonlinear
        self.priors: dict[str, Any] = {unknown.name: unknown.prior for unknown in unknowns}
        if amplitude is not None:
            middle = torch.tensor(math.log(amplitude), dtype=torch.float64)
            self.priors["amplitude"] = dist.LogNormal(middle, _WIDE)
        self._kernel, self._scale = kernel, scale
        if kernel is not None:
            shape = kernel.weights.shape
            for name, _, prior, _, _ in kernel.named_priors():
                law = prior.expand(shape) if prior.batch_shape != shape else prior
                self.priors[name.removesuffix("_prior")] = law.to_event(1)
        self.centers: dict[str, tuple[Tensor, Tensor]] = {}
        self._anchor: tuple[Tensor, Tensor, Tensor] | None = None

    @property
    def num_weights(self) -> int:
        """Number of features."""
        return self.rows.known.shape[1]

    def settings(self) -> dict[str, Any]:
        """What identifies the model in a record."""
        return {
            "model": "CoefficientModel",
            "unknowns": sorted(self.priors),
            "size": self.num_weights,
        }

    def __call__(self) -> None:
        """Sample all unknowns, and weigh them by what is given."""
        values = {name: pyro.sample(name, self._law(name)) for name in self.priors}
        if self.nonlinear is None:
            pyro.factor("evidence", self.log_evidence(values))
            return
        flat = dist.Normal(self.rows.known.new_zeros(self.num_weights), 1.0).to_event(1).mask(False)
        weights = self.place(values, pyro.sample(WEIGHTS, flat))
        prior = dist.Normal(0.0, self._root(values).clamp(min=_LEAST))
        pyro.factor("prior of the weights", prior.log_prob(weights).sum())
        for name, (mean, sd, target) in self._predictions(values, weights).items():
            if len(target):
                pyro.sample(name, dist.Normal(mean, sd).to_event(1), obs=target)

    def log_evidence(self, values: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Log density of all that is given, the weights integrated out; linear equations only."""
        return self._evidence(self._triangle(values, None), values)

    def linearized(
        self, values: Mapping[str, Tensor]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " m"], Float[Tensor, "m m"]]:
        """Log evidence by Laplace's method, z_0 and R."""
        white = self.rows.known.new_zeros(self.num_weights)
        for _ in range(1 if self.nonlinear is None else _STEPS):
            triangle = self._triangle(values, white)
            white = torch.linalg.solve_triangular(
                triangle[:-1, :-1], triangle[:-1, -1:], upper=True
            )[:, 0]
        triangle = self._triangle(values, white)
        return self._evidence(triangle, values), white, triangle[:-1, :-1]

    def anchor(self, values: Mapping[str, Tensor]) -> None:
        """Measure the site of the weights from their mode at these unknowns, in its units."""
        _, white, triangle = self.linearized(values)
        self._anchor = self._root(values), white, triangle

    def place(self, values: Mapping[str, Tensor], site: Tensor) -> Float[Tensor, " m"]:
        """The weights x that a value of their site stands for."""
        if self._anchor is None:
            return self._root(values) * site
        root, white, triangle = self._anchor
        step = torch.linalg.solve_triangular(triangle, site[:, None], upper=True)[:, 0]
        return root * (white + step)

    def misfits(self, values: Mapping[str, Tensor], weights: Tensor) -> dict[str, float]:
        """Root mean square misfit over its noise of equation, conditions and data."""
        counts = {"equation": self.rows.num_points}
        found = {}
        for name, (mean, sd, target) in self._predictions(values, weights).items():
            count = counts.get(name, len(target))
            if count:
                found[name] = float(((mean - target) / sd).norm()) / math.sqrt(count)
        return found

    def draw_weights(
        self, values: Mapping[str, Tensor], generator: torch.Generator
    ) -> Float[Tensor, " m"]:
        """One draw of the weights given the other unknowns."""
        if self.nonlinear is not None:
            return self.place(values, values[WEIGHTS])
        triangle = self._triangle(values, None)
        noise = torch.randn(self.num_weights, generator=generator, dtype=triangle.dtype)
        right = (triangle[:-1, -1] + noise)[:, None]
        white = torch.linalg.solve_triangular(triangle[:-1, :-1], right, upper=True)[:, 0]
        return self._root(values) * white

    def _evidence(self, triangle: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        rows, diagonal = self.rows, triangle.diagonal().abs()
        logs = rows.num_points * torch.log(_number(rows.source_noise, values))
        logs = logs + len(rows.data_target) * torch.log(_number(rows.data_noise, values))
        return -0.5 * diagonal[-1].square() - diagonal[:-1].log().sum() - logs

    def _triangle(self, values: Mapping[str, Tensor], white: Tensor | None) -> Tensor:
        """R of all whitened rows with their target, linearised at whitened weights."""
        rows, root = self.rows, self._root(values)
        operator, source = self._operator(values), rows.source
        if self.nonlinear is not None and white is not None:
            pde, arguments = self.nonlinear
            assert pde.nonlinear is not None
            at = [block @ (root * white) for block in arguments]
            value, slopes = pointwise(pde.nonlinear, at)
            source = source - value
            for block, u, slope in zip(arguments, at, slopes, strict=True):
                operator = operator + slope[:, None] * block
                source = source + slope * u
        source_noise = _number(rows.source_noise, values)
        data_noise = _number(rows.data_noise, values)
        blocks = [operator / source_noise, rows.conditions, rows.data / data_noise]
        targets = [source / source_noise, rows.condition_target, rows.data_target / data_noise]
        top = torch.cat([torch.cat(blocks) * root, torch.cat(targets)[:, None]], 1)
        identity = torch.eye(self.num_weights, self.num_weights + 1, dtype=top.dtype)
        return torch.linalg.qr(torch.cat([top, identity])).R

    def _operator(self, values: Mapping[str, Tensor]) -> Tensor:
        total = self.rows.known
        for name, block in self.rows.unknown.items():
            total = total + values[name] * block
        return total

    def _predictions(
        self, values: Mapping[str, Tensor], weights: Tensor
    ) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        """Mean, noise and value of all that is given, at given weights."""
        rows = self.rows
        equation = self._operator(values) @ weights
        if self.nonlinear is not None:
            pde, arguments = self.nonlinear
            assert pde.nonlinear is not None
            equation = equation + pde.nonlinear(*(block @ weights for block in arguments))
        one = weights.new_ones(())
        return {
            "equation": (equation, _number(rows.source_noise, values), rows.source),
            "conditions": (rows.conditions @ weights, one, rows.condition_target),
            "data": (rows.data @ weights, _number(rows.data_noise, values), rows.data_target),
        }

    def _root(self, values: Mapping[str, Tensor]) -> Float[Tensor, " m"]:
        """Prior standard deviations of the weights."""
        if self._kernel is None:
            assert self._scale is not None
            return values.get("amplitude", self._scale.new_ones(())) * self._scale.sqrt()
        parts = [values.get(part, getattr(self._kernel, part).detach()) for part in _PARTS]
        density = _Mixture(self._kernel, *parts)
        total = self.rows.known.new_ones(1)
        for side in self.sides:
            total = (total[:, None] * density_scales(side, density, detach=False)).flatten()
        return total.sqrt()

    def _law(self, name: str) -> Any:
        if name not in self.centers:
            return self.priors[name]
        return Centered(self.priors[name], *self.centers[name])


class _Mixture:
    """A kernel's spectral density at other parameters."""

    def __init__(
        self, kernel: SpectralMixtureKernel, weights: Tensor, centers: Tensor, lengths: Tensor
    ) -> None:
        self._kernel, self._parts = kernel, (weights, centers, lengths)

    def spectral_density(self, frequency: Tensor) -> Tensor:
        return self._kernel.spectral_density_at(frequency, *self._parts)


def _number(value: float | Unknown, values: Mapping[str, Tensor]) -> Tensor:
    if isinstance(value, Unknown):
        return values[value.name]
    return torch.tensor(value, dtype=torch.float64)
