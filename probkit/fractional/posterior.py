"""Posterior of a fractional series: draws of the parameters, and what follows the data.

Forecasts need the state after the last observation under every draw, not the data. The state is
filtered when it is first asked for, and saved with the draws, so that a loaded posterior forecasts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.fractional.batch_filter import filter_batch
from probkit.fractional.forecast import EndState, forecast, mixture_quantiles, some_levels
from probkit.fractional.series import Series
from probkit.fractional.simulate import sample_futures
from probkit.fractional.system import FractionalSystem, fractional_system
from probkit.infer import DrawsPosterior
from probkit.infer.protocols import State
from probkit.infer.registry import register
from probkit.random import Seed, as_generator
from probkit.validation import as_times, check_whole

__all__ = ["Clock", "HurstPosterior", "select_series"]

_MANY = 10_000_000
_SAVED = 10
"""series of a batch whose states are filtered for saving if nobody has asked for them"""


@dataclass(frozen=True)
class Clock:
    """Where a series ends.

    Attributes:
        step: length of a step, in the user's unit of time.
        last_time: of the data, in that unit.
        elapsed: steps from the first to the last time.
        span: the same as a whole number, which chooses the table.
        increments: whether values are increments.
        num_series: of the batch.
    """

    step: float
    last_time: float
    elapsed: float
    span: int
    increments: bool
    num_series: int

    @classmethod
    def of(cls, series: Series) -> Clock:
        number = len(series.values)
        last, elapsed = series.last_time, series.elapsed[-1]
        return cls(series.step, last, elapsed, series.span, series.increments, number)

    def gaps(self, times: Any) -> list[float]:
        """Steps between future times, from the last time of the data on.

        Raises:
            ConfigurationError: times that do not follow the data.
        """
        points = as_times(times, "times").reshape(-1)
        gaps = torch.cat([points.new_tensor([self.last_time]), points]).diff() / self.step
        if not len(gaps) or not bool((gaps > 0).all()) or not bool(gaps.isfinite().all()):
            raise ConfigurationError(
                message(
                    "Forecasts are for increasing times after the data",
                    where="times",
                    got=points.tolist()[:3],
                    expected=f"> {self.last_time}",
                )
            )
        found: list[float] = gaps.tolist()
        return found


@register("probkit.fractional.HurstPosterior")
class HurstPosterior(DrawsPosterior):
    """Draws of ``hurst``, ``scale``, ``noise`` and ``reversion``, and forecasts from them.

    Args:
        draws: (chain, draw) by site, or (chain, draw, R) of a batch.
        clock: where the series ends.
        series: the data; None for a loaded posterior.
        ends: states after the data by number of the series, as far as they are known.
        settings: of the estimator that made it.
    """

    def __init__(
        self,
        draws: dict[str, Tensor],
        clock: Clock,
        *,
        series: Series | None = None,
        ends: Mapping[int, EndState] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        batch = {name: ["series"] for name, value in draws.items() if value.dim() == 3}
        super().__init__(draws, dims=batch)
        self.clock, self.settings = clock, dict(settings or {})
        self._series, self._ends = series, dict(ends or {})

    def predict(
        self, times: Any, *, quantiles: Sequence[float] = (0.05, 0.95), series: int = 0
    ) -> dict[str, Tensor]:
        """Mean, sd (T,) and quantiles (levels, T) of observations at future times.

        Raises:
            ConfigurationError: times that do not follow the data, no such series, or a level
                outside (0, 1).
        """
        levels, gaps = some_levels(quantiles), self.clock.gaps(times)
        mean, sd = forecast(*self.systems(series), self.end(series), gaps)
        spread = (sd.square().mean(-1) + mean.var(-1, unbiased=False)).sqrt()
        return {
            "mean": mean.mean(-1),
            "sd": spread,
            "quantiles": mixture_quantiles(mean, sd, levels),
        }

    def sample_futures(
        self, times: Any, *, num_samples: int = 100, seed: Seed = 0, series: int = 0
    ) -> Float[Tensor, "num_samples T"]:
        """Joint draws of observations at future times.

        Raises:
            ConfigurationError: times that do not follow the data, or no such series.
        """
        gaps, generator = self.clock.gaps(times), as_generator(seed)
        index = self.choose(num_samples, generator)
        system, scale = self.systems(series, index)
        mean, covariance, elapsed, increments = self.end(series)
        end = EndState(mean[index], covariance[index], elapsed, increments)
        return sample_futures(system, scale, end, gaps, generator).mT

    def choose(self, num_samples: int, generator: torch.Generator) -> Tensor:
        """Numbers of draws, with replacement."""
        number = check_whole("num_samples", num_samples, 1, _MANY)
        return torch.randint(0, self.num_chains * self.num_draws, (number,), generator=generator)

    def systems(
        self, series: int = 0, index: Tensor | None = None
    ) -> tuple[FractionalSystem, Float[Tensor, " S"]]:
        """State-space models of one series in units of a step, and scales; all draws or some."""
        self._check(series)
        step = self.clock.step
        flat = {name: value.flatten(0, 1) for name, value in self.draws.items()}
        flat = {name: v[:, series] if v.dim() == 2 else v for name, v in flat.items()}
        if index is not None:
            flat = {name: value[index] for name, value in flat.items()}
        hurst = flat["hurst"]
        scale = flat["scale"] * step**hurst
        ratio = (flat["noise"] / scale).square() if "noise" in flat else torch.zeros_like(scale)
        rate = flat["reversion"] * step if "reversion" in flat else None
        return fractional_system(hurst, ratio, rate, self.clock.span), scale

    def end(self, series: int = 0) -> EndState:
        """The state of one series after its data, under every draw.

        Raises:
            ConfigurationError: a loaded posterior of a large batch does not hold it.
        """
        self._check(series)
        if series not in self._ends:
            if self._series is None:
                raise ConfigurationError(
                    message(
                        "The saved result does not hold the state of this series",
                        where="series",
                        got=series,
                        expected=f"one of {sorted(self._ends)}",
                        remedy="forecast it before saving, or fit again",
                    )
                )
            one = select_series(self._series, series)
            pieces = filter_batch(self.systems(series)[0], one)
            mean = pieces.mean[0]
            self._ends[series] = EndState(
                mean, pieces.covariance, self.clock.elapsed, self.clock.increments
            )
        return self._ends[series]

    def spec(self) -> dict[str, Any]:
        """What ``from_spec`` needs besides the tensors."""
        self._fill()
        own = {"clock": asdict(self.clock), "settings": self.settings, "ends": sorted(self._ends)}
        return {**super().spec(), **own}

    def tensors(self) -> State:
        """The draws, and the states after the data."""
        self._fill()
        ends: State = {}
        for number, end in self._ends.items():
            ends |= {f"end.{number}.mean": end.mean, f"end.{number}.covariance": end.covariance}
        return {**super().tensors(), **ends}

    @classmethod
    def from_spec(cls, spec: dict[str, Any], tensors: State) -> HurstPosterior:
        """Rebuild from a manifest's spec and the saved tensors."""
        clock = Clock(**spec["clock"])
        ends = {}
        for number in spec["ends"]:
            mean, covariance = (tensors[f"end.{number}.{n}"] for n in ("mean", "covariance"))
            ends[number] = EndState(mean, covariance, clock.elapsed, clock.increments)
        draws = {name: tensors[f"draws.{name}"] for name in spec["sites"]}
        return cls(draws, clock, ends=ends, settings=spec["settings"])

    def _fill(self) -> None:
        if self._series is not None:
            for number in range(min(self.clock.num_series, _SAVED)):
                self.end(number)

    def _check(self, series: int) -> None:
        if not 0 <= series < self.clock.num_series:
            raise ConfigurationError(
                message(
                    "There is no such series",
                    where="series",
                    got=series,
                    expected=f"0 to {self.clock.num_series - 1}",
                )
            )


def select_series(series: Series, index: int) -> Series:
    """One series of a batch, as a batch of one."""
    values, first = series.values[index : index + 1], series.first[index : index + 1]
    return replace(series, values=values, first=first)
