"""A solution held as its values on a grid, between which kernels interpolate; no error bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.infer import PointEstimate
from probkit.infer.protocols import State
from probkit.infer.registry import register
from probkit.kernels import SpectralMixtureKernel
from probkit.kernels.constraints import real_line
from probkit.linalg.kronecker_sum import mode_product
from probkit.pde.harmonics import Harmonics
from probkit.pde.map_joint import JITTER, derivative_matrix
from probkit.pde.problem import Box
from probkit.pde.spectrum import density_scales

__all__ = ["CollocationEstimate"]

_CHUNK = 64
_PARTS = ("weights", "frequencies", "lengthscales")


@register("probkit.pde.CollocationEstimate")
class CollocationEstimate(PointEstimate):
    """u on a grid and the kernels of its sides.

    Args:
        box: the grid.
        kernels: one a side.
        values: u at the grid's points, of its shape.
    """

    def __init__(
        self, box: Box, kernels: Sequence[SpectralMixtureKernel], values: Float[Tensor, "*n"]
    ) -> None:
        self.box, self.kernels = box, [kernel.requires_grad_(False) for kernel in kernels]
        spectra = {
            f"{part}_{axis}": getattr(kernel, part).detach().clone()
            for axis, kernel in enumerate(kernels)
            for part in _PARTS
        }
        super().__init__({"u": values.detach(), **spectra})
        self._weights = values.detach()
        for axis, (kernel, x) in enumerate(zip(self.kernels, box.axes(), strict=True)):
            covariance = derivative_matrix(kernel, x, 0) + JITTER * torch.eye(len(x), dtype=x.dtype)
            inverse = torch.linalg.inv(torch.linalg.cholesky(covariance))
            weights = torch.tensordot(inverse.mT @ inverse, self._weights, dims=([1], [axis]))
            self._weights = weights.movedim(0, axis)

    @property
    def sides(self) -> list[Harmonics]:
        """Harmonics at which :meth:`spectra` reports the spectra."""
        return [
            Harmonics(low, high - low, 2 * (high - low), n)
            for (low, high), n in zip(self.box.bounds, self.box.sizes, strict=True)
        ]

    def spectra(self) -> list[Tensor]:
        """For each side, the prior variance of every harmonic (constant, cosines, sines)."""
        return [density_scales(s, k) for s, k in zip(self.sides, self.kernels, strict=True)]

    def mean_at(
        self, x: Float[Tensor, "n d"], *, derivative: Sequence[int] | None = None
    ) -> Float[Tensor, " n"]:
        """u, or a derivative of it, at points."""
        orders = derivative or (0,) * self.box.dim
        rows = [self._rows(axis, x[:, axis], o) for axis, o in enumerate(orders)]
        found = torch.tensordot(rows[0], self._weights, dims=1)
        for row in rows[1:]:
            found = (row.reshape(*row.shape, *[1] * (found.dim() - 2)) * found).sum(1)
        return found

    def predict(
        self, x: Float[Tensor, "n d"], *, derivative: Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        """Refused: a point has no spread; see :meth:`mean_at`.

        Raises:
            ConfigurationError: always.
        """
        self._refuse("spread")

    def sample_at(self, *args: Any, **kwargs: Any) -> Tensor:
        """Refused: a point has no draws.

        Raises:
            ConfigurationError: always.
        """
        self._refuse("sample")

    def on_grid(
        self, axes: Sequence[Float[Tensor, " n_k"]], *, derivative: Sequence[int] | None = None
    ) -> Float[Tensor, "*n"]:
        """u, or a derivative of it, on the grid of given coordinates."""
        orders = derivative or (0,) * self.box.dim
        rows = [self._rows(k, a, o) for k, (a, o) in enumerate(zip(axes, orders, strict=True))]
        return mode_product(rows, self._weights)

    def spec(self) -> dict[str, Any]:
        """What ``from_spec`` needs besides the tensors."""
        kinds = [kernel.kind for kernel in self.kernels]
        bounds = [list(pair) for pair in self.box.bounds]
        return {**super().spec(), "kinds": kinds, "bounds": bounds, "num": list(self.box.sizes)}

    @classmethod
    def from_spec(cls, spec: dict[str, Any], tensors: State) -> CollocationEstimate:
        """Rebuild from a manifest's spec and the saved tensors."""
        kernels = []
        for axis, kind in enumerate(spec["kinds"]):
            parts = [tensors[f"point.{part}_{axis}"] for part in _PARTS]
            kernel = SpectralMixtureKernel(
                len(parts[0]), kind=kind, frequency_constraint=real_line()
            )
            kernel.weights, kernel.frequencies, kernel.lengthscales = parts
            kernels.append(kernel)
        bounds = [(low, high) for low, high in spec["bounds"]]
        return cls(Box(bounds, tuple(spec["num"])), kernels, tensors["point.u"])

    def _rows(self, axis: int, x: Tensor, order: int) -> Tensor:
        nodes, kernel = self.box.axes()[axis], self.kernels[axis]
        # a part of the points at a time: every component has a matrix of its own on the way
        parts = [
            kernel.lag_covariance(part[:, None] - nodes, order, event=2) for part in x.split(_CHUNK)
        ]
        return torch.cat(parts)
