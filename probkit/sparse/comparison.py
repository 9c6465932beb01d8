"""Compare methods over a sweep of simulated problems: mean, band and time of every measure.

A trial gives each method the same problem and returns numbers by measure; the band of a mean is the
5 to 95 % range of means of resampled trials (bootstrap), so that few trials show as wide bands.
"""

from __future__ import annotations

import csv
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.plot import plot_curves
from probkit.sparse.baselines import kronecker_omp, omp, oracle_least_squares
from probkit.sparse.estimator import METHODS, KroneckerSBL

__all__ = ["BASELINES", "Curve", "Sweep", "estimate", "timed"]

BASELINES = ("omp", "kronecker_omp", "oracle")
_RESAMPLES, _LEVELS = 400, (0.05, 0.95)

Trial = Callable[[str, float, int], Mapping[str, float]]
"""Method, value of the swept quantity and seed to numbers by measure."""


def estimate(
    method: str,
    y: Tensor,
    dictionaries: Sequence[Tensor],
    *,
    noise: float,
    num_nonzero: int,
    truth: Tensor | None = None,
    **settings: Any,
) -> Tensor:
    """x by a method of :class:`KroneckerSBL`, which learns no noise here, or by a baseline.

    Args:
        method: one of ``METHODS`` or ``BASELINES``.
        y: (M_1, ..., M_I).
        dictionaries: (M_k, N_k).
        noise: variance.
        num_nonzero: of every factor's support, which "kronecker_omp" is told.
        truth: (N_1, ..., N_I), which the oracle needs.
        settings: further ones of :class:`KroneckerSBL`.

    Raises:
        ConfigurationError: there is no such method, or the oracle is not told the truth.
    """
    if method == "oracle" and truth is not None:
        return oracle_least_squares(y, dictionaries, truth)
    if method == "omp":
        return omp(y, dictionaries, noise=noise)
    if method == "kronecker_omp":
        return kronecker_omp(y, dictionaries, max_size=num_nonzero)
    if method not in METHODS:
        raise ConfigurationError(
            message(
                "Unknown method",
                where="method",
                got=repr(method),
                expected="one of " + ", ".join((*METHODS, *BASELINES)),
                causes=("the oracle needs the truth",) if method == "oracle" else (),
            )
        )
    return KroneckerSBL(method, noise=noise, **settings).recover(y, dictionaries).mean


def timed(solve: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """What ``solve`` returns and its CPU seconds."""
    start = time.process_time()
    found = solve()
    return found, time.process_time() - start


@dataclass(frozen=True)
class Curve:
    """A measure of one method along a sweep: means and their bands, (P,) each."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass
class Sweep:
    """Trials of several methods along one quantity.

    Args:
        name: of the swept quantity, for axes and tables.
        values: of the quantity.
        methods: to compare.
        seeds: of the trials, the same for all methods and values.
        trial: one method on one problem.

    Example:
        >>> sweep = Sweep("snr", [1.0, 2.0], ["a"], [0, 1], lambda m, v, s: {"error": v + s})
        >>> list(sweep.run())
        ['snr 1: a error 1.5', 'snr 2: a error 2.5']
    """

    name: str
    values: Sequence[float]
    methods: Sequence[str]
    seeds: Sequence[int]
    trial: Trial

    def run(self) -> Iterator[str]:
        """Run all trials, yielding a line for each method and value."""
        found: dict[tuple[str, float], list[Mapping[str, float]]] = {}
        for value in self.values:
            for method in self.methods:
                trials = [self.trial(method, value, seed) for seed in self.seeds]
                found[method, value] = trials
                means = {m: float(np.mean([t[m] for t in trials])) for m in trials[0]}
                text = ", ".join(f"{m} {v:.4g}" for m, v in means.items())
                yield f"{self.name} {value:g}: {method} {text}"
        self.trials = found

    @property
    def measures(self) -> list[str]:
        return list(next(iter(self.trials.values()))[0])

    def curve(self, method: str, measure: str) -> Curve:
        """Mean and band of a measure along the sweep."""
        rng = np.random.default_rng(0)
        mean, low, high = [], [], []
        for value in self.values:
            numbers = np.array([t[measure] for t in self.trials[method, value]])
            picked = rng.integers(0, len(numbers), (_RESAMPLES, len(numbers)))
            bounds = np.quantile(numbers[picked].mean(1), _LEVELS)
            mean.append(float(numbers.mean()))
            low.append(float(bounds[0]))
            high.append(float(bounds[1]))
        return Curve(np.array(mean), np.array(low), np.array(high))

    def scores(self) -> dict[str, dict[str, dict[str, float]]]:
        """Means by value, method and measure, for a report."""
        return {
            f"{self.name} {value:g}": {
                method: {
                    m: float(np.mean([t[m] for t in self.trials[method, value]]))
                    for m in self.measures
                }
                for method in self.methods
            }
            for value in self.values
        }

    def write_table(self, path: str | Path) -> Path:
        """CSV: one row for each method, value and measure, with median and band."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow([self.name, "method", "measure", "mean", "low", "high", "median"])
            for method in self.methods:
                for measure in self.measures:
                    curve = self.curve(method, measure)
                    for i, value in enumerate(self.values):
                        numbers = [t[measure] for t in self.trials[method, value]]
                        band = (curve.mean[i], curve.low[i], curve.high[i])
                        writer.writerow([value, method, measure, *band, np.median(numbers)])
        return path

    def draw(self, folder: str | Path, logarithmic: Sequence[str]) -> dict[str, str]:
        """A figure for each measure; file names by caption."""
        figures = {}
        for measure in self.measures:
            curves = {
                m: (c.mean, c.low, c.high) for m in self.methods for c in [self.curve(m, measure)]
            }
            plain = re.sub(r"[^a-z0-9]+", "_", f"{self.name} {measure}".lower()).strip("_")
            path = Path(folder) / f"{plain}.png"
            labels = (self.name, measure)
            plot_curves(self.values, curves, labels, path, logarithmic=measure in logarithmic)
            figures[f"{measure} against {self.name}, mean and band"] = path.name
        return figures
