"""The posterior of a solution held in harmonic features: moments and draws of u and derivatives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.infer.protocols import State
from probkit.infer.registry import register
from probkit.linalg.kronecker_sum import mode_product
from probkit.linalg.whitened import WhitenedPosterior
from probkit.pde.harmonics import Harmonics, product_rows
from probkit.validation import check_quantile

__all__ = ["HarmonicPosterior", "ReportsAtPoints", "normal_quantiles"]


def normal_quantiles(
    mean: Float[Tensor, "*n"], sd: Float[Tensor, "*n"], q: float | Sequence[float]
) -> Float[Tensor, "*qn"]:
    """Quantiles of normal marginals, where mean and sd are; a sequence adds a leading dimension.

    Raises:
        ConfigurationError: a level that is no probability strictly between 0 and 1.

    Example:
        >>> mean, sd = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
        >>> normal_quantiles(mean, sd, [0.1, 0.5, 0.9]).shape
        torch.Size([3, 2])
    """
    levels = torch.as_tensor(check_quantile("q", q), dtype=mean.dtype, device=mean.device)
    score = torch.special.ndtri(levels)
    return mean + score.reshape(*score.shape, *[1] * mean.dim()) * sd


class ReportsAtPoints(ABC):
    """Moments, quantiles and draws of u at ``points``, by what a posterior says of any points."""

    @property
    @abstractmethod
    def points(self) -> Float[Tensor, "n d"]:
        """Where the moments are reported."""

    @abstractmethod
    def predict(
        self, x: Float[Tensor, "n d"], *, derivative: Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        """Mean and standard deviation of u, or of a derivative of u, at points."""

    @abstractmethod
    def mean_at(
        self, x: Float[Tensor, "n d"], *, derivative: Sequence[int] | None = None
    ) -> Float[Tensor, " n"]:
        """Mean of u, or of a derivative, at points."""

    @abstractmethod
    def sample_at(
        self,
        x: Float[Tensor, "n d"],
        num_samples: int,
        generator: torch.Generator,
        *,
        derivative: Sequence[int] | None = None,
    ) -> Float[Tensor, "num_samples n"]:
        """Joint draws of u, or of a derivative, at points."""

    def mean(self) -> dict[str, Tensor]:
        """Posterior mean of u at the reported points."""
        return {"u": self.mean_at(self.points)}

    def sd(self) -> dict[str, Tensor]:
        """Posterior standard deviation of u at the reported points."""
        return {"u": self.predict(self.points)["sd"]}

    def quantile(self, q: float | Sequence[float]) -> dict[str, Tensor]:
        """Quantiles of u at the reported points; a sequence adds a leading dimension.

        Raises:
            ConfigurationError: a level that is no probability strictly between 0 and 1.
        """
        check_quantile("q", q)  # before the work of the moments
        found = self.predict(self.points)
        return {"u": normal_quantiles(found["mean"], found["sd"], q)}

    def sample(self, num_samples: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draws of u at the reported points."""
        return {"u": self.sample_at(self.points, num_samples, generator)}


@register("probkit.pde.HarmonicPosterior")
class HarmonicPosterior(ReportsAtPoints):
    """Gaussian posterior of u = sum_j x_j phi_j.

    Args:
        sides: features of every dimension.
        weights: posterior of x.
        points: (n, d) where :meth:`mean` and its like report u.
    """

    def __init__(
        self, sides: Sequence[Harmonics], weights: WhitenedPosterior, points: Float[Tensor, "n d"]
    ) -> None:
        self.sides, self.weights, self._points = list(sides), weights, points

    @property
    def points(self) -> Float[Tensor, "n d"]:
        """The collocation points."""
        return self._points

    def predict(
        self, x: Float[Tensor, "n d"], *, derivative: Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        """Mean and standard deviation of u, or of a derivative of u, at points."""
        rows = self._rows(x, derivative)
        return {
            "mean": rows @ self.weights.weights,
            "sd": self.weights.variance(rows).clamp(min=0).sqrt(),
        }

    def mean_at(
        self, x: Float[Tensor, "n d"], *, derivative: Sequence[int] | None = None
    ) -> Float[Tensor, " n"]:
        """Mean of u, or of a derivative, at points."""
        return self._rows(x, derivative) @ self.weights.weights

    def on_grid(
        self, axes: Sequence[Float[Tensor, " n_k"]], *, derivative: Sequence[int] | None = None
    ) -> Float[Tensor, "*n"]:
        """Mean of u, or of a derivative, on the grid of given coordinates."""
        orders = derivative or (0,) * len(self.sides)
        rows = [side.rows(a, o) for side, a, o in zip(self.sides, axes, orders, strict=True)]
        return mode_product(
            rows, self.weights.weights.reshape([s.num_features for s in self.sides])
        )

    def spectra(self) -> list[Tensor]:
        """For each side, the prior variance of every harmonic (constant, cosines, sines)."""
        scale = self.weights.root.square().reshape([s.num_features for s in self.sides])
        axes = range(len(self.sides))
        return [
            scale.sum([j for j in axes if j != k]) if k or len(axes) > 1 else scale for k in axes
        ]

    def sample_at(
        self,
        x: Float[Tensor, "n d"],
        num_samples: int,
        generator: torch.Generator,
        *,
        derivative: Sequence[int] | None = None,
    ) -> Float[Tensor, "num_samples n"]:
        """Joint draws of u, or of a derivative, at points."""
        return self.weights.sample(num_samples, generator) @ self._rows(x, derivative).mT

    def spec(self) -> dict[str, Any]:
        """What ``from_spec`` needs besides the tensors."""
        return {
            "sides": [asdict(side) for side in self.sides],
            "noise": self.weights.noise,
            "log_evidence": self.weights.log_evidence,
        }

    def tensors(self) -> State:
        """The posterior of the weights and the points."""
        found = {n: getattr(self.weights, n) for n in ("mean", "root", "singular", "right")}
        return {**found, "points": self.points}

    @classmethod
    def from_spec(cls, spec: dict[str, Any], tensors: State) -> HarmonicPosterior:
        """Rebuild from a manifest's spec and the saved tensors."""
        names = ("mean", "root", "singular", "right")
        weights = WhitenedPosterior(
            **{n: tensors[n] for n in names},
            noise=spec["noise"],
            log_evidence=spec["log_evidence"],
        )
        return cls([Harmonics(**side) for side in spec["sides"]], weights, tensors["points"])

    def _rows(self, x: Tensor, derivative: Sequence[int] | None) -> Tensor:
        return product_rows(self.sides, x, derivative or (0,) * len(self.sides))
