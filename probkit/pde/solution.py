"""``PDESolution``: a solved problem, seen as a function with error bars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.pde.collocation_estimate import CollocationEstimate
from probkit.pde.figures import plot_solution
from probkit.pde.grid_posterior import GridPosterior
from probkit.pde.posterior import HarmonicPosterior
from probkit.pde.view import SolutionView
from probkit.random import Seed, as_generator
from probkit.validation import as_real, check_finite

__all__ = ["PDESolution"]


class PDESolution(SolutionView):
    """A view on a :class:`probkit.infer.FitResult`; adds nothing to it.

    Args:
        result: of :meth:`probkit.pde.GPSolver.fit`, or loaded.
    """

    _posteriors = (HarmonicPosterior, GridPosterior, CollocationEstimate)

    @property
    def residual_norms(self) -> dict[str, float]:
        """Root-mean-square misfit of the equation and of the conditions, relative to the data."""
        return {n: self.diagnostics[f"residual_{n}"] for n in ("equation", "conditions")}

    @property
    def log_evidence(self) -> float:
        """Log density of the data; NaN if they were exact, where it has no meaning."""
        return float(self.diagnostics["log_evidence"])

    def mean(self, x: Any, *, derivative: Sequence[int] | None = None) -> Float[Tensor, " n"]:
        """Posterior mean of u, or of a derivative, at points ``(n, d)`` (``(n,)`` in 1-D)."""
        posterior: Any = self.result.posterior
        found: Tensor = posterior.mean_at(self._points(x), derivative=self._orders(derivative))
        return found

    def sd(self, x: Any, *, derivative: Sequence[int] | None = None) -> Float[Tensor, " n"]:
        """Posterior standard deviation of u, or of a derivative, at points."""
        return self._predict(x, derivative)["sd"]

    def variance(self, x: Any, *, derivative: Sequence[int] | None = None) -> Float[Tensor, " n"]:
        """Posterior variance of u, or of a derivative, at points."""
        return self.sd(x, derivative=derivative).square()

    def sample(
        self,
        x: Any,
        num_samples: int,
        *,
        seed: Seed = 0,
        derivative: Sequence[int] | None = None,
    ) -> Float[Tensor, "num_samples n"]:
        """Joint posterior draws of u, or of a derivative, at points."""
        posterior: Any = self.result.posterior
        orders = self._orders(derivative)
        found: Tensor = posterior.sample_at(
            self._points(x), num_samples, as_generator(seed), derivative=orders
        )
        return found

    def spectrum(self) -> list[tuple[Tensor, Tensor]]:
        """For each side: frequencies (cycles per unit) and the prior variance found at each."""
        posterior: Any = self.result.posterior
        found = []
        for side, own in zip(posterior.sides, posterior.spectra(), strict=True):
            power = torch.cat([own[:1], own[1 : side.num + 1] + own[side.num + 1 :]])
            found.append((side.frequencies()[: side.num + 1], power))
        return found

    def on_grid(
        self, axes: Sequence[Any], *, derivative: Sequence[int] | None = None
    ) -> Float[Tensor, "*n"]:
        """Posterior mean of u, or of a derivative, on the grid of given coordinates."""
        posterior: Any = self.result.posterior
        points = [check_finite(as_real(a, "axes").to(torch.float64), "axes") for a in axes]
        self._tell_outside(points)
        found: Tensor = posterior.on_grid(points, derivative=self._orders(derivative))
        return found

    def plot(self, path: str | Path) -> Path:
        """Draw u with a band of two standard deviations (a line), or maps of mean and sd.

        Args:
            path: the file; its suffix decides the format.

        Raises:
            ConfigurationError: three dimensions or more; draw slices of :meth:`on_grid`.
        """
        spread = None if self.diagnostics.get("point_estimate") else self.sd
        return plot_solution(self._sides, self.mean, spread, path)

    def _predict(self, x: Any, derivative: Sequence[int] | None) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.result.predict(
            self._points(x), derivative=self._orders(derivative)
        )
        return found
