"""Posterior of a Hurst index that changes in time: draws of its curve, at any time of the data.

The curve of a draw is a spline through its knots, so that neither data nor model are needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.fractional.curves import Curve
from probkit.fractional.forecast import some_levels
from probkit.infer import DrawsPosterior
from probkit.infer.protocols import State
from probkit.infer.registry import register
from probkit.random import Seed, as_generator
from probkit.statespace.fractional_tables import HURST_RANGE
from probkit.validation import as_times, check_whole

__all__ = ["TimeVaryingPosterior", "to_index"]

_LOW, _HIGH = HURST_RANGE
_MANY = 10_000_000


@register("probkit.fractional.TimeVaryingPosterior")
class TimeVaryingPosterior(DrawsPosterior):
    """Draws of the sites of ``TimeVaryingHurst``, and of H at times of one's own.

    Args:
        draws: (chain, draw, ...) by site; those of curves end with the grid of times.
        curve: of H, on the logistic scale; its knots are the site ``hurst_knots``.
        times: (T,) the grid, in the user's unit.
        settings: of the estimator that made it.
    """

    def __init__(
        self,
        draws: dict[str, Tensor],
        curve: Curve,
        times: Float[Tensor, " T"],
        settings: Mapping[str, Any],
    ) -> None:
        timed = {n: ["time"] for n in ("hurst", "scale") if draws[n].dim() == 3}
        super().__init__(draws, dims=timed, coords={"time": times.tolist()})
        self.curve, self.times, self.settings = curve, times, dict(settings)

    def predict(
        self, times: Any, *, quantiles: Sequence[float] = (0.05, 0.95)
    ) -> dict[str, Tensor]:
        """Mean and sd (T,) and quantiles (levels, T) of H at times within the span of the data.

        Raises:
            ConfigurationError: a time outside the data, or a level outside (0, 1).
        """
        levels = some_levels(quantiles)
        curves = self._curves(times)
        return {
            "mean": curves.mean(0),
            "sd": curves.std(0),
            "quantiles": torch.quantile(curves, curves.new_tensor(levels), dim=0),
        }

    def sample_index(
        self, times: Any, *, num_samples: int = 100, seed: Seed = 0
    ) -> Float[Tensor, "num_samples T"]:
        """Joint draws of H at times within the span of the data, with replacement.

        Raises:
            ConfigurationError: a time outside the data.
        """
        number = check_whole("num_samples", num_samples, 1, _MANY)
        curves = self._curves(times)
        return curves[torch.randint(len(curves), (number,), generator=as_generator(seed))]

    def spec(self) -> dict[str, Any]:
        """What ``from_spec`` needs besides the tensors."""
        return {**super().spec(), "curve": asdict(self.curve), "settings": self.settings}

    @classmethod
    def from_spec(cls, spec: dict[str, Any], tensors: State) -> TimeVaryingPosterior:
        """Rebuild from a manifest's spec and the saved tensors."""
        draws = {name: tensors[f"draws.{name}"] for name in spec["sites"]}
        times = torch.tensor(spec["coords"]["time"], dtype=torch.float64)
        return cls(draws, Curve(**spec["curve"]), times, spec["settings"])

    def _curves(self, times: Any) -> Float[Tensor, "S T"]:
        """H at times, by draw."""
        points, curve = as_times(times, "times").reshape(-1), self.curve
        inside = (points >= curve.begin) & (points <= curve.end)
        if not len(points) or not bool(inside.all()):
            raise ConfigurationError(
                message(
                    "H(t) is known within the span of the data",
                    where="times",
                    got=points[~inside].tolist()[:3],
                    expected=f"in [{curve.begin:g}, {curve.end:g}]",
                )
            )
        knots = self.draws["hurst_knots"].flatten(0, 1)
        return to_index(knots @ curve.basis(points).mT)


def to_index(logistic: Tensor) -> Tensor:
    """From the real line to the range of the table.

    Example:
        >>> float(to_index(torch.tensor(0.0)))
        0.5
    """
    return _LOW + (_HIGH - _LOW) * torch.sigmoid(logistic)
