"""The posterior of a solution held as a tensor of coefficients of the sides' functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.infer.protocols import State
from probkit.infer.registry import register
from probkit.linalg.kronecker_sum import mode_product
from probkit.pde.grid_basis import GridBasis
from probkit.pde.grid_spread import Spread, spread_from
from probkit.pde.harmonics import Harmonics
from probkit.pde.posterior import ReportsAtPoints
from probkit.pde.spectrum import Band

__all__ = ["GridPosterior"]

_CHUNK = 4096
_REPORTED = 2500


@register("probkit.pde.GridPosterior")
class GridPosterior(ReportsAtPoints):
    """Gaussian posterior of u = sum Z_j q_j1(x_1) .. q_jd(x_d).

    ``mean`` and its like, and saved files, report u on a thinned grid of about 2500 points;
    :meth:`predict` and :meth:`on_grid` give it anywhere.

    Args:
        bases: functions of every side.
        coefficients: Z, the mean.
        spread: what is left uncertain.
    """

    def __init__(
        self, bases: Sequence[GridBasis], coefficients: Float[Tensor, "*r"], spread: Spread
    ) -> None:
        self.bases, self.coefficients, self.spread = list(bases), coefficients, spread

    @property
    def sides(self) -> list[Harmonics]:
        """Features of every dimension."""
        return [b.side for b in self.bases]

    @property
    def points(self) -> Float[Tensor, "n d"]:
        """Where :meth:`mean` reports u."""
        most = round(_REPORTED ** (1 / len(self.bases)))
        axes = [b.x[:: -(-len(b.x) // most)] for b in self.bases]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))

    def predict(
        self, x: Float[Tensor, "n d"], *, derivative: Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        """Mean and standard deviation of u, or of a derivative of u, at points."""
        sd = self.spread.variance(self._rows(x, derivative)).clamp(min=0).sqrt()
        return {"mean": self.mean_at(x, derivative=derivative), "sd": sd}

    def mean_at(
        self, x: Float[Tensor, "n d"], *, derivative: Sequence[int] | None = None
    ) -> Float[Tensor, " n"]:
        """Mean of u, or of a derivative, at points."""
        found = [
            _contract(self.coefficients[None], self._rows(part, derivative))[0]
            for part in x.split(_CHUNK)
        ]
        return torch.cat(found)

    def on_grid(
        self, axes: Sequence[Float[Tensor, " n_k"]], *, derivative: Sequence[int] | None = None
    ) -> Float[Tensor, "*n"]:
        """Mean of u, or of a derivative, on the grid of given coordinates."""
        orders = derivative or (0,) * len(self.bases)
        rows = [b.at(x, o) for b, x, o in zip(self.bases, axes, orders, strict=True)]
        return mode_product(rows, self.coefficients)

    def sample_at(
        self,
        x: Float[Tensor, "n d"],
        num_samples: int,
        generator: torch.Generator,
        *,
        derivative: Sequence[int] | None = None,
    ) -> Float[Tensor, "num_samples n"]:
        """Joint draws of u, or of a derivative, at points."""
        draws = self.coefficients + self.spread.sample(num_samples, generator)
        found = [_contract(draws, self._rows(part, derivative)) for part in x.split(_CHUNK)]
        return torch.cat(found, 1)

    def spectra(self) -> list[Tensor]:
        """For each side, the prior variance of every harmonic (constant, cosines, sines)."""
        return [(b.coefficients * b.sizes).square().sum(1) for b in self.bases]

    def spec(self) -> dict[str, Any]:
        """What ``from_spec`` needs besides the tensors."""
        return {
            "sides": [asdict(b.side) for b in self.bases],
            "bands": [list(b.band) for b in self.bases],
            "spread": self.spread.spec(),
        }

    def tensors(self) -> State:
        """Bases, coefficients and spread."""
        found: State = {"mean": self.coefficients}
        for k, basis in enumerate(self.bases):
            for name in ("x", "values", "coefficients", "sizes"):
                found[f"basis_{k}.{name}"] = getattr(basis, name)
        return found | {f"spread.{n}": t for n, t in self.spread.tensors().items()}

    @classmethod
    def from_spec(cls, spec: dict[str, Any], tensors: State) -> GridPosterior:
        """Rebuild from a manifest's spec and the saved tensors."""
        names = ("x", "values", "coefficients", "sizes")
        bases = [
            GridBasis(
                Harmonics(**side),
                **{n: tensors[f"basis_{k}.{n}"] for n in names},
                band=Band(*band),
            )
            for k, (side, band) in enumerate(zip(spec["sides"], spec["bands"], strict=True))
        ]
        prefix = "spread."
        own = {n[len(prefix) :]: t for n, t in tensors.items() if n.startswith(prefix)}
        return cls(bases, tensors["mean"], spread_from(spec["spread"], own))

    def _rows(self, x: Tensor, derivative: Sequence[int] | None) -> list[Tensor]:
        orders = derivative or (0,) * len(self.bases)
        return [b.at(x[:, k], o) for k, (b, o) in enumerate(zip(self.bases, orders, strict=True))]


def _contract(tensors: Float[Tensor, "s *r"], rows: Sequence[Tensor]) -> Float[Tensor, "s n"]:
    """Products of tensors with the rows of every side, point by point."""
    found = torch.tensordot(tensors, rows[-1], dims=([tensors.dim() - 1], [1]))
    for row in reversed(rows[:-1]):
        found = (found * row.mT).sum(-2)
    return found
