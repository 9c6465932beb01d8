"""What an inverse problem leaves: draws of its unknowns, and of u with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.infer import DrawsPosterior
from probkit.infer.protocols import State
from probkit.infer.registry import register
from probkit.pde.figures import plot_solution
from probkit.pde.harmonics import Harmonics, product_rows
from probkit.pde.view import SolutionView

__all__ = ["InversePosterior", "InverseSolution"]

_FEATURES = "features"


@register("probkit.pde.InversePosterior")
class InversePosterior(DrawsPosterior):
    """Draws of the unknowns and of the weights of u in harmonic features.

    Args:
        draws: by site, (chain, draw, *event); ``features`` are the weights of u.
        sides: features of every dimension.
        points: (n, d) collocation points.
    """

    def __init__(
        self,
        draws: dict[str, Float[Tensor, "chain draw *event"]],
        sides: Sequence[Harmonics],
        points: Float[Tensor, "n d"],
    ) -> None:
        super().__init__(draws)
        self.sides, self.points = list(sides), points

    def draws_at(
        self, x: Float[Tensor, "n d"], *, derivative: Sequence[int] | None = None
    ) -> Float[Tensor, "draw n"]:
        """u, or a derivative, at points for every draw."""
        rows = product_rows(self.sides, x, derivative or (0,) * len(self.sides))
        return self.draws[_FEATURES].flatten(0, 1) @ rows.mT

    def predict(
        self, x: Float[Tensor, "n d"], *, derivative: Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        """Mean and standard deviation of u, or of a derivative, at points."""
        found = self.draws_at(x, derivative=derivative)
        return {"mean": found.mean(0), "sd": _spread(found)}

    def spec(self) -> dict[str, Any]:
        """What ``from_spec`` needs besides the tensors."""
        return {"sites": sorted(self.draws), "sides": [asdict(side) for side in self.sides]}

    def tensors(self) -> State:
        """The draws, by prefixed site name, and the points."""
        return {**super().tensors(), "points": self.points}

    @classmethod
    def from_spec(cls, spec: dict[str, Any], tensors: State) -> InversePosterior:
        """Rebuild from a manifest's spec and the saved tensors."""
        draws = {name: tensors[f"draws.{name}"] for name in spec["sites"]}
        return cls(draws, [Harmonics(**side) for side in spec["sides"]], tensors["points"])


class InverseSolution(SolutionView):
    """A view on a :class:`probkit.infer.FitResult`; adds nothing to it.

    Args:
        result: of :meth:`probkit.pde.InverseSolver.fit`, or loaded.
    """

    _posteriors = (InversePosterior,)

    def coefficients(self) -> dict[str, dict[str, float]]:
        """Mean, standard deviation and 95 % interval of every unknown that is a single number."""
        found = {}
        for name, value in self._posterior.draws.items():
            if value.dim() == 2:
                low, high = torch.quantile(value.flatten(), value.new_tensor([0.025, 0.975]))
                moments = {"mean": float(value.mean()), "sd": float(_spread(value.flatten()))}
                found[name] = {**moments, "low": float(low), "high": float(high)}
        return found

    def mean(self, x: Any, *, derivative: Sequence[int] | None = None) -> Float[Tensor, " n"]:
        """Posterior mean of u, or of a derivative, at points ``(n, d)`` (``(n,)`` in 1-D)."""
        return self._posterior.predict(self._points(x), derivative=self._orders(derivative))["mean"]

    def sd(self, x: Any, *, derivative: Sequence[int] | None = None) -> Float[Tensor, " n"]:
        """Posterior standard deviation of u, the unknowns' uncertainty included."""
        return self._posterior.predict(self._points(x), derivative=self._orders(derivative))["sd"]

    def sample(self, x: Any, *, derivative: Sequence[int] | None = None) -> Float[Tensor, "draw n"]:
        """Joint draws of u, or of a derivative, at points: one for every draw of the unknowns."""
        return self._posterior.draws_at(self._points(x), derivative=self._orders(derivative))

    def plot(self, path: str | Path) -> Path:
        """Draw u with a band of two standard deviations (a line), or maps of mean and sd.

        Args:
            path: the file; its suffix decides the format.

        Raises:
            ConfigurationError: three dimensions or more.
        """
        return plot_solution(self._sides, self.mean, self.sd, path)

    @property
    def _posterior(self) -> InversePosterior:
        assert isinstance(self.result.posterior, InversePosterior)
        return self.result.posterior


def _spread(draws: Float[Tensor, "draw *n"]) -> Float[Tensor, "*n"]:
    """Standard deviation over draws; NaN where a fit left a single point."""
    return draws.std(0) if len(draws) > 1 else torch.full_like(draws[0], torch.nan)
