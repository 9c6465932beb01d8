"""``TimeVaryingHurst``: how roughness changes in time, with a band; for measured series."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from probkit.errors import ConfigurationError, DataError, message
from probkit.fractional.curve_posterior import CurvePosterior
from probkit.fractional.curves import Curve
from probkit.fractional.series import Series, prepare_series
from probkit.fractional.varying import VaryingSeries, split_gaps, step_ends
from probkit.fractional.varying_posterior import TimeVaryingPosterior, to_index
from probkit.infer import FitResult
from probkit.infer.engine import Run
from probkit.infer.importance import WeightedDraws
from probkit.infer.provenance import data_digest
from probkit.plot import plot_curves
from probkit.random import Seed, as_generator, fixed_seed
from probkit.statespace.multifractal_law import DEFINITIONS
from probkit.validation import as_real, as_times, check_choice, check_whole

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["TimeVaryingHurst"]

_MIN_KNOTS, _MANY = 4, 10_000_000
_NOISE_PRIOR = (-2.0, 3.0)  # of the log noise variance over that of a typical increment
_CONSTANT, _VARYING = "constant", "varying"


class TimeVaryingHurst:
    """Posterior of a Hurst index H(t) that changes smoothly in time, by the exact filter.

    ``y(t_n) = x(t_n) + noise`` or increments of x, where x is one of two processes::

        increment   dx = sum_k w_k(H(t)) dY_k      its increments have the local law
        level       x(t) = w(H(t))'(Y(t) - Y(0))   multifractional Brownian motion

    (see :mod:`probkit.statespace.multifractal`; the origin of ``level`` is the first time). H(t) is
    a smooth curve through knots, on the logistic scale between the ends of the law table, with a
    Gaussian-process prior whose length and size are learned; so is the logarithm of the scale.
    Nested Laplace integrates all of them.

    Args:
        kind: "levels" or "increments": what the values are.
        definition: "increment" or "level": which process.
        noise: whether values carry independent noise besides the process.
        scale: "varying": the sd of an increment over one step changes smoothly, and H(t) is read
            from how increments hang together; right where volatility may change too. "constant":
            the scale per unit of time is constant, so that H(t) is read mostly from the size of
            increments. That is the textbook process, sharper, and depends on the unit of time.
        hurst: "varying", or "constant" for comparison.
        num_knots: of each curve.
        num_points: of the time grid of the posterior.
        num_samples: posterior draws.
        num_diagnostic_samples: draws whose exact likelihood is computed for k-hat.
        max_rounds: limit on the rounds of the search.
        seed: of draws; of a generator or None an integer is drawn and kept.

    Attributes:
        times_: (num_points,) grid in the user's unit, over the span of the data.
        result_: the :class:`probkit.infer.FitResult`; sites ``hurst`` (chain, draw, time),
            ``scale`` (sd of the local process over one unit of time, with a time axis if varying),
            ``noise`` (sd), and of each varying curve ``NAME_lengthscale`` (user's unit),
            ``NAME_amplitude`` and ``NAME_knots``. Diagnostics: ``log_evidence``, ``khat``,
            ``num_missing``, ``clamped`` (share of the curvature that was convex and set to 0),
            ``warnings`` (curves that change faster than their knots allow).

    Raises:
        ConfigurationError: an unknown word or a setting out of range.

    Example:
        >>> from probkit.statespace.multifractal import MultifractionalBM
        >>> t = torch.linspace(1 / 400, 1, 400, dtype=torch.float64)
        >>> process = MultifractionalBM(lambda t: 0.3 + 0.4 * t, num_steps=400, dt=1 / 400)
        >>> y = process.sample(t, 1, seed=0)[0]
        >>> model = TimeVaryingHurst("levels", noise=False, num_knots=6).fit(y, t)
        >>> found = model.result_.posterior.mean()["hurst"]
        >>> bool(found[-1] > found[0] + 0.2)
        True
    """

    def __init__(
        self,
        kind: str,
        *,
        definition: str = "increment",
        noise: bool = True,
        scale: str = _VARYING,
        hurst: str = _VARYING,
        num_knots: int = 20,
        num_points: int = 101,
        num_samples: int = 1000,
        num_diagnostic_samples: int = 200,
        max_rounds: int = 12,
        seed: Seed = 0,
    ) -> None:
        self.kind, self.definition, self.noise = kind, definition, noise
        self.scale, self.hurst, self.num_knots = scale, hurst, num_knots
        self.num_points, self.num_samples, self.max_rounds = num_points, num_samples, max_rounds
        self.num_diagnostic_samples, self.seed = num_diagnostic_samples, fixed_seed(seed)
        check_choice("kind", "kind", kind, ("levels", "increments"))
        check_choice("definition", "definition", definition, DEFINITIONS)
        check_choice("setting", "scale", scale, (_VARYING, _CONSTANT))
        check_choice("setting", "hurst", hurst, (_VARYING, _CONSTANT))
        for name in ("num_points", "num_samples", "num_diagnostic_samples", "max_rounds"):
            setattr(self, name, check_whole(name, getattr(self, name), 1, _MANY))
        self.num_knots = check_whole("num_knots", num_knots, _MIN_KNOTS, 10_000)

    def fit(self, y: Any, times: Any = None) -> TimeVaryingHurst:
        """Fit to one series (N,), or to R series (R, N) of the same times and the same H(t).

        Args:
            y: values; NaN where missing.
            times: (N,) strictly increasing; 0, 1, 2, ... if None. For increments, the ends of
                their steps, evenly spaced. Dates become days since 1970-01-01, so that the unit
                of time is a day.

        Raises:
            ShapeError, DataError, DtypeError: see the messages; all are raised before any
                computation.
        """
        values = as_real(y, "y").to("cpu", torch.float64)
        grid = None if times is None else as_times(times, "times").cpu()
        series = prepare_series(values, grid, self.kind)
        ends = step_ends(series)
        begin, end = float(ends[0] - series.gaps[0] * series.step), float(ends[-1])
        self.series_ = split_gaps(series, (end - begin) / (4 * self.num_knots))
        self._unit = _typical(series)
        self._varying = VaryingSeries(self._scaled(), self.definition)
        self._curves = [
            self._curve("hurst", self.hurst, begin, end),
            self._curve("scale", self.scale, begin, end),
        ]
        self._bases = [curve.basis(self._varying.points) for curve in self._curves]
        self.times_ = torch.linspace(begin, end, self.num_points, dtype=torch.float64)
        extra = [_NOISE_PRIOR] if self.noise else []
        posterior = CurvePosterior(self._log_likelihood, self._curves, extra)
        self.result_ = self._run(posterior, data_digest(values, grid))
        return self

    def predict(
        self, times: Any, *, quantiles: Sequence[float] = (0.05, 0.95)
    ) -> dict[str, Tensor]:
        """Posterior of H at times within the span of the data.

        Args:
            times: (T,) in any order; dates become days.
            quantiles: levels.

        Returns:
            ``mean`` (T,), ``sd`` (T,) and ``quantiles`` (levels, T).

        Raises:
            ConfigurationError: a time outside the data, a level outside (0, 1), or a model that is
                not fitted.
        """
        return self._posterior().predict(times, quantiles=quantiles)

    def sample(self, times: Any, *, num_samples: int = 100, seed: Seed = 0) -> Tensor:
        """Joint draws of H at times within the span of the data, (num_samples, T).

        Raises:
            ConfigurationError: a time outside the data, or a model that is not fitted.
        """
        return self._posterior().sample_index(times, num_samples=num_samples, seed=seed)

    def compare(self) -> float:
        """Log Bayes factor of the varying Hurst index against a constant one.

        The constant model has the same prior of the mean, the same scale and noise.

        Raises:
            ConfigurationError: a model that is not fitted, or was loaded without its data.
        """
        self._posterior()
        if not hasattr(self, "_varying"):
            raise ConfigurationError(
                message("A loaded model does not hold its data", remedy="fit again to compare")
            )
        other = TimeVaryingHurst(**{**self._settings(), "hurst": _CONSTANT})
        other._unit, other._varying = self._unit, self._varying
        other.series_, other.times_ = self.series_, self.times_
        first = self._curves[0]
        other._curves = [
            other._curve("hurst", _CONSTANT, first.begin, first.end),
            self._curves[1],
        ]
        other._bases = [curve.basis(self._varying.points) for curve in other._curves]
        extra = [_NOISE_PRIOR] if self.noise else []
        found = other._run(CurvePosterior(other._log_likelihood, other._curves, extra), "")
        return float(self.result_.diagnostics["log_evidence"] - found.diagnostics["log_evidence"])

    def plot(self, path: str | Path, *, level: float = 0.9, time: str = "time") -> Path:
        """H(t) with its central band.

        Args:
            path: the file; its suffix decides the format.
            level: of the band.
            time: label of the time axis.
        """
        self._posterior()
        tail = (1 - level) / 2
        found = self.predict(self.times_, quantiles=(tail, 1 - tail))
        curve = (found["mean"], *found["quantiles"])
        name = f"posterior mean, {level:.0%} band ({self.definition})"
        return plot_curves(self.times_, {name: curve}, (time, "Hurst index H(t)"), path)

    def save(self, directory: str | Path) -> Path:
        """Write the result (``FitResult.save``), with H(t) at any time and without the data."""
        self._posterior()
        return self.result_.save(directory)

    @classmethod
    def load(cls, directory: str | Path) -> TimeVaryingHurst:
        """A fitted model from a saved result; all but :meth:`compare` works without the data.

        Raises:
            CheckpointError: no such result, or that of another model.
        """
        result = FitResult.load(directory, expect=TimeVaryingPosterior)
        assert isinstance(result.posterior, TimeVaryingPosterior)
        model = cls(**result.posterior.settings)
        model.result_, model.times_ = result, result.posterior.times
        return model

    def to_datatree(self, **options: Any) -> xr.DataTree:
        """The result for ArviZ (``FitResult.to_datatree``)."""
        self._posterior()
        return self.result_.to_datatree(**options)

    def _posterior(self) -> TimeVaryingPosterior:
        result = getattr(self, "result_", None)
        if result is None:
            raise ConfigurationError(
                message("The model is not fitted", remedy="call fit(y, times) first")
            )
        assert isinstance(result.posterior, TimeVaryingPosterior)
        return result.posterior

    def _scaled(self) -> Series:
        s, unit = self.series_, self._unit
        return replace(s, values=s.values / unit, first=s.first / unit)

    def _curve(self, name: str, word: str, begin: float, end: float) -> Curve:
        number = 1 if word == _CONSTANT else self.num_knots
        if name == "hurst":
            return Curve(name, begin, end, number, 0.0, 1.5, 2.0)
        # a varying scale is that of a step, around one; a constant one that of the unit of time
        centre = -0.5 * math.log(self.series_.step) if word == _CONSTANT else 0.0
        return Curve(name, begin, end, number, centre, 10.0, 2.0)

    def _log_likelihood(self, f: Tensor) -> Tensor:
        first, second = self._curves
        hurst = to_index(self._bases[0] @ f[: first.num_knots])
        log_scale = self._bases[1] @ f[first.num_knots :][: second.num_knots]
        if second.is_constant:
            log_scale = log_scale + hurst * math.log(self.series_.step)
        noise = f[-1].exp() if self.noise else f.new_zeros(())
        return self._varying.log_likelihood(hurst, log_scale, noise)

    def _run(self, posterior: CurvePosterior, digest: str) -> FitResult:
        run = Run(
            engine="nested Laplace",
            settings=self._settings(),
            limits=("max_rounds",),
            seed=self.seed,
            data=digest,
            reason="curves with Gaussian-process priors and an exact likelihood",
            checkpoint=None,
            resume=False,
            callbacks=(),
            progress=False,
            every=1,
        )
        outcome = run.loop(posterior.sweep, posterior.initialize, self.max_rounds)
        state, generator = outcome.state, as_generator(self.seed)
        numbers = (self.num_samples, self.num_diagnostic_samples)
        knots, hyper, weighted, figures = posterior.draw(state, *numbers, generator)
        draws = {**self._sites(knots), **self._hyper_sites(hyper)}
        importance = WeightedDraws(self._sites(weighted.draws["knots"]), weighted.log_weights)
        log_evidence = figures.pop("log_evidence")
        diagnostics: dict[str, Any] = {
            **importance.diagnostics(),
            **figures,
            "log_evidence": log_evidence - self._jacobian(),
            "num_rounds": outcome.num_steps,
            "num_missing": self.series_.num_missing,
            "clamped": float(state["clamped"]),
            "warnings": self._warnings(hyper),
        }
        return FitResult(
            outcome.status,
            TimeVaryingPosterior(
                {name: value[None] for name, value in draws.items()},
                self._curves[0],
                self.times_,
                self._settings(),
            ),
            {name: np.asarray(column) for name, column in outcome.history.items()},
            diagnostics,
            run.record(state),
            outcome.detail,
            None,
            state,
            importance,
        )

    def _sites(self, knots: Tensor) -> dict[str, Tensor]:
        """Draws (S, F) of all knots as curves on the grid, in the user's units."""
        first, second = self._curves
        own = knots[:, : first.num_knots]
        scale = knots[:, first.num_knots :][:, : second.num_knots]
        hurst = to_index(own @ first.basis(self.times_).mT)
        log_scale = scale @ second.basis(self.times_).mT
        found = {"hurst": hurst, "hurst_knots": own}
        if second.is_constant:
            found["scale"] = self._unit * log_scale[:, 0].exp()
        else:
            found["scale"] = self._unit * (log_scale - hurst * math.log(self.series_.step)).exp()
            found["scale_knots"] = scale
        if self.noise:
            found["noise"] = self._unit * (knots[:, -1] / 2).exp()
        return found

    def _hyper_sites(self, hyper: Tensor) -> dict[str, Tensor]:
        found, position = {}, 0
        for curve in self._curves:
            if curve.is_constant:
                continue
            length, amplitude = hyper[:, position : position + 2].exp().unbind(-1)
            found[f"{curve.name}_lengthscale"] = length * (curve.end - curve.begin)
            found[f"{curve.name}_amplitude"] = amplitude
            position += 2
        return found

    def _warnings(self, hyper: Tensor) -> list[str]:
        found = self._hyper_sites(hyper)
        texts = []
        for curve in self._curves:
            if curve.is_constant:
                continue
            length = float(found[f"{curve.name}_lengthscale"].median())
            spacing = curve.spacing * (curve.end - curve.begin)
            if length < 2 * spacing:
                texts.append(
                    f"The {curve.name} changes over {length:.3g}, and its knots are {spacing:.3g} "
                    "apart: use more knots."
                )
        return texts

    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _SETTINGS}

    def _jacobian(self) -> float:
        """Of the change to units of a typical increment."""
        return int(self.series_.observed.sum()) * len(self.series_.values) * math.log(self._unit)


_FLAT = 1e-12
_SETTINGS = (
    *("kind", "definition", "noise", "scale", "hurst", "num_knots", "num_points", "num_samples"),
    *("num_diagnostic_samples", "max_rounds", "seed"),
)


def _typical(series: Series) -> float:
    """Spread of the increments: the unit in which priors of scale and noise are stated.

    Raises:
        DataError: equal increments, which have none.
    """
    values = series.values[:, series.observed]
    steps = values if series.increments else values.diff()
    spread = float(steps.std())
    if spread <= _FLAT * float(steps.abs().max()):
        raise DataError(
            message(
                "The increments do not vary",
                where="y",
                got=f"a standard deviation of {spread:.3g}",
                expected="a rough series, not a straight line",
            )
        )
    return spread
