"""``HurstModel``: how rough is a series, with an honest interval; the door for measured series."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.fractional.doubtful_fits import warn_of_doubtful_fits
from probkit.fractional.encoder import HurstEncoder
from probkit.fractional.figures import plot_hurst
from probkit.fractional.grid import GridPosterior, draw_grid, grid_posterior
from probkit.fractional.index_coordinate import IndexCoordinate
from probkit.fractional.model import hurst_model, log_scale
from probkit.fractional.posterior import Clock, HurstPosterior, select_series
from probkit.fractional.predictive_checks import predictive_p
from probkit.fractional.series import Series, prepare_series
from probkit.fractional.simulate import sample_series
from probkit.fractional.variogram import Variogram, sample_variogram
from probkit.infer import HMC, NUTS, DrawsPosterior, FitResult, Laplace, Status, fit
from probkit.infer.provenance import data_digest, provenance
from probkit.infer.sampling_diagnostics import mixing_diagnostics
from probkit.infer.verdict import Verdict
from probkit.random import Seed, as_generator, fixed_seed
from probkit.statespace.fractional_tables import HURST_RANGE
from probkit.validation import as_real, as_times, check_choice, check_whole, unknown

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["HurstModel"]


_GRID_SIZES = (11, 10_000)
_ENGINES = ("None", "HurstEncoder", "Laplace()", "NUTS()", "HMC()")


class HurstModel:
    """Posterior of the Hurst index, scale and noise of one or many series, by the exact filter.

    ``y(t_n) = level + sigma B_H(t_n) + noise`` (or its increments, or with mean reversion the
    stationary fractional Ornstein-Uhlenbeck process), at even or uneven times, with missing values.

    Args:
        kind: "levels" or "increments" (of mean zero): what the values are. There is no default,
            because a mistake here is the commonest cause of a wrong Hurst index.
        noise: whether values carry independent noise besides the process. Leaving it out where
            there is noise biases the index towards 0.
        reversion: whether the level reverts to a mean.
        grid_size: points of the Hurst index on the final grid, 11 to 10 000: fewer do not follow
            the posterior.
        num_samples: posterior draws.
        engine: None for quadrature on a grid; a trained ``HurstEncoder``; or ``Laplace``, ``NUTS``
            or ``HMC`` settings. Grids and encoders give every series of a batch its own
            parameters, the other engines one set to all.
        seed: of draws and engines; of a generator or None an integer is drawn and kept.

    Attributes:
        result_: the :class:`probkit.infer.FitResult`; sites ``hurst``, ``scale`` (sd of the
            process's increment over one unit of time), ``noise`` (sd) and ``reversion`` (per unit
            of time), each (chain, draw) or, for a batch of R series, (chain, draw, R).
        grid_: the grid, where one was used.

    Raises:
        ConfigurationError: an unknown kind, mean reversion of increments, or a number out of range.

    Example:
        >>> from probkit.statespace.fractional_noise import sample_fgn
        >>> y = sample_fgn(0.3, 500, 1, seed=0)[0]
        >>> model = HurstModel("increments", noise=False).fit(y)
        >>> abs(float(model.result_.posterior.mean()["hurst"]) - 0.3) < 0.06
        True
    """

    def __init__(
        self,
        kind: str,
        *,
        noise: bool = True,
        reversion: bool = False,
        grid_size: int = 61,
        num_samples: int = 1000,
        engine: HurstEncoder | Laplace | NUTS | HMC | None = None,
        seed: Seed = 0,
    ) -> None:
        check_choice("kind", "kind", kind, ("levels", "increments"))
        if not isinstance(engine, HurstEncoder | Laplace | NUTS | HMC | None):
            raise unknown("engine", "engine", engine, _ENGINES)
        if reversion and kind == "increments":
            raise ConfigurationError(
                message(
                    "Mean reversion is a property of levels",
                    where="reversion",
                    remedy='give levels with kind="levels"',
                )
            )
        if isinstance(engine, HurstEncoder) and (engine.noise != noise or reversion):
            raise ConfigurationError(
                message(
                    "The encoder was trained for another model",
                    where="engine",
                    got=f"noise={engine.noise}, reversion=False",
                    expected=f"noise={noise}, reversion={reversion}",
                )
            )
        self.kind, self.noise, self.reversion = kind, noise, reversion
        self.grid_size = check_whole("grid_size", grid_size, *_GRID_SIZES)
        self.num_samples = check_whole("num_samples", num_samples, 2, 10_000_000)
        self.engine, self.seed = engine, fixed_seed(seed)
        self.grid_: GridPosterior | None = None

    def fit(self, y: Any, times: Any = None) -> HurstModel:
        """Fit to one series (N,) or R series (R, N) of the same times.

        Args:
            y: values; NaN where missing.
            times: (N,) strictly increasing; 0, 1, 2, ... if None. Dates become days since
                1970-01-01, so that the unit of time is a day; times closer than a second should
                be given as numbers.

        Raises:
            ShapeError, DataError, DtypeError: see the messages; all are raised before any
                computation.
        """
        values = as_real(y, "y").to("cpu", torch.float64)
        grid = None if times is None else as_times(times, "times").cpu()
        self.series_ = prepare_series(values, grid, self.kind)
        self._single, self.grid_ = values.dim() == 1, None
        if self.engine is None:
            self.result_ = self._fit_grid(values, grid)
        elif isinstance(self.engine, HurstEncoder):
            self.result_ = self._fit_encoder(self.engine, values, grid)
        else:
            self.result_ = self._fit_model(self.engine)
        self.result_.diagnostics["num_missing"] = self.series_.num_missing
        self.result_.diagnostics["check_with"] = "HurstModel.check()"
        warn_of_doubtful_fits(self._posterior(), self.series_, self.kind, noise=self.noise)
        return self

    def predict(
        self, times: Any, *, quantiles: Sequence[float] = (0.05, 0.95), series: int = 0
    ) -> dict[str, Tensor]:
        """Predictive law of observations at future times, parameters integrated out.

        Args:
            times: (T,) increasing, after the last time of the data; dates become days. For
                increments the ends of their intervals.
            quantiles: levels.
            series: which of a batch.

        Returns:
            ``mean`` (T,), ``sd`` (T,) and ``quantiles`` (levels, T).

        Raises:
            ConfigurationError: times that do not follow the data, or a level outside (0, 1).
        """
        return self._posterior().predict(times, quantiles=quantiles, series=series)

    def sample(
        self, times: Any, *, num_samples: int = 100, seed: Seed = 0, series: int = 0
    ) -> Tensor:
        """Joint draws of the observations at future times, (num_samples, T), as for predict.

        Raises:
            ConfigurationError: times that do not follow the data.
        """
        return self._posterior().sample_futures(
            times, num_samples=num_samples, seed=seed, series=series
        )

    def replicate(self, *, num_samples: int = 100, seed: Seed = 0, series: int = 0) -> Tensor:
        """Series like the data, drawn from the fitted model, (num_samples, T).

        They are at the times of the data; of levels all but the first, which they start from.
        """
        posterior, generator = self._posterior(), as_generator(seed)
        one = select_series(self._data(), series)
        systems = posterior.systems(series, posterior.choose(num_samples, generator))
        return sample_series(*systems, one, generator).mT

    def variogram(self, *, num_samples: int = 100, seed: Seed = 0, series: int = 0) -> Variogram:
        """Mean squared change by lag: of the data, and of :meth:`replicate`.

        A model that fits has the data inside the spread of the replicates at every lag.
        """
        one = select_series(self._data(), series)
        drawn = self.replicate(num_samples=num_samples, seed=seed, series=series).mT
        lags, data = sample_variogram(one, one.values.mT)
        return Variogram(lags * one.step, data[:, 0], sample_variogram(one, drawn)[1])

    def check(self, *, num_samples: int = 400, seed: Seed = 0) -> Verdict:
        """Judge the model by ``num_samples`` series like each: ``predictive_p`` in the diagnostics.

        Jumps, trends and levels that revert show in the largest step or the variogram's growth.

        Raises:
            ConfigurationError: a loaded model, which does not hold its data.
        """
        data, generator, found = self._data(), as_generator(seed), {}
        for r in range(data.values.shape[0]):
            drawn = self.replicate(num_samples=num_samples, seed=generator, series=r)
            name = "y" if self._single else f"y[{r}]"
            found[name] = predictive_p(select_series(data, r), drawn.mT)
        self.result_.diagnostics["predictive_p"] = found
        return self.result_.verdict

    def plot(
        self, path: str | Path, *, what: str = "forecast", times: Any = None, series: int = 0
    ) -> Path:
        """One figure: the "forecast", the "posterior" of the Hurst index, or the "variogram".

        Args:
            path: the file; its suffix decides the format.
            what: to draw.
            times: of the forecast; by default a fifth of the data's span.
            series: which of a batch.

        Raises:
            ConfigurationError: an unknown figure.
        """
        return plot_hurst(self, path, what, times, series)

    def compare(self, hurst: float = 0.5) -> Tensor:
        """Log Bayes factor of a free Hurst index against a fixed one, for every series.

        Positive values speak for the free index. The prior of the free one is uniform.

        Raises:
            ConfigurationError: an index outside the tables, or a model without its data.

        Example:
            >>> from probkit.statespace.fractional_noise import sample_fgn
            >>> rough = HurstModel("increments", noise=False).fit(sample_fgn(0.2, 300, 1)[0])
            >>> bool(rough.compare(0.5) > 3)
            True
        """
        data = self._data()
        low, high = HURST_RANGE
        if not low <= hurst <= high:
            raise ConfigurationError(
                message(
                    "The Hurst index is outside the table",
                    where="hurst",
                    got=hurst,
                    expected=f"in [{low}, {high}]",
                )
            )
        options: dict[str, Any] = {"noise": self.noise, "reversion": self.reversion}
        free = self.grid_ or grid_posterior(data, size=self.grid_size, **options)
        fixed = grid_posterior(data, size=1, hurst=hurst, **options)
        return free.log_evidence - fixed.log_evidence

    def to_datatree(self, **options: Any) -> xr.DataTree:
        """The result for ArviZ (``FitResult.to_datatree``)."""
        self._posterior()
        return self.result_.to_datatree(**options)

    def save(self, directory: str | Path) -> Path:
        """Write the result (``FitResult.save``), with what forecasts need and without the data.

        Of a batch of more than ten series, the forecasts of those that were forecast before.
        """
        self._posterior()
        return self.result_.save(directory)

    @classmethod
    def load(cls, directory: str | Path) -> HurstModel:
        """A fitted model from a saved result; it forecasts without the data.

        Raises:
            CheckpointError: no such result, or that of another model.
        """
        result = FitResult.load(directory, expect=HurstPosterior)
        assert isinstance(result.posterior, HurstPosterior)
        model = cls(**result.posterior.settings)
        model.result_ = result
        return model

    def _fit_encoder(self, encoder: HurstEncoder, values: Tensor, grid: Tensor | None) -> FitResult:
        start = time.process_time()
        found = encoder.draw(self.series_, self.num_samples, self.seed)
        posterior = self._in_user_units(DrawsPosterior(found.draws))
        history = {
            "objective": np.array([found.diagnostics["importance_ess"]]),
            "segment": np.array([0.0]),
            "seconds": np.array([time.process_time() - start]),
        }
        record = provenance(
            engine="encoder",
            reason="asked for",
            settings={
                "kind": self.kind,
                "noise": self.noise,
                "num_proposals": encoder.num_proposals,
                "num_samples": self.num_samples,
            },
            seed=self.seed,
            dtype=torch.float64,
            device="cpu",
            data=data_digest(values, grid),
        )
        weighted = found.importance
        return FitResult(
            Status.CONVERGED, posterior, history, found.diagnostics, record, importance=weighted
        )

    def _fit_grid(self, values: Tensor, grid: Tensor | None) -> FitResult:
        start = time.process_time()
        found = grid_posterior(
            self.series_, noise=self.noise, reversion=self.reversion, size=self.grid_size
        )
        self.grid_ = found
        posterior = self._in_user_units(
            DrawsPosterior(draw_grid(found, self.num_samples, self.seed))
        )
        history = {
            "objective": np.array([float(found.log_evidence.sum())]),
            "segment": np.array([0.0]),
            "seconds": np.array([time.process_time() - start]),
        }
        record = provenance(
            engine="grid",
            reason="few parameters: quadrature is exact",
            settings=self._settings(),
            seed=self.seed,
            dtype=torch.float64,
            device="cpu",
            data=data_digest(values, grid),
        )
        diagnostics = {"log_evidence": found.log_evidence.tolist(), "grid_points": len(found.hurst)}
        return FitResult(Status.CONVERGED, posterior, history, diagnostics, record)

    def _fit_model(self, engine: Laplace | NUTS | HMC) -> FitResult:
        options = {"noise": self.noise, "reversion": self.reversion}
        coordinate = None
        if self.noise:
            coordinate = IndexCoordinate(self.series_, reversion=self.reversion)
        model = hurst_model(self.series_, coordinate=coordinate, **options)
        found = fit(model, engine=engine, seed=self.seed)
        posterior: Any = found.posterior
        if coordinate is not None:
            draws = dict(posterior.draws)
            draws["hurst"] = coordinate.hurst(draws["log_noise"], draws.pop("hurst_offset"))
            posterior = DrawsPosterior(draws)
        posterior = self._in_user_units(posterior)
        found.posterior = posterior
        if "r_hat" in found.diagnostics:
            found.diagnostics.update(mixing_diagnostics(posterior.draws))
        return found

    def _in_user_units(self, posterior: Any) -> HurstPosterior:
        """Sites of the user: scale per unit of time, noise sd, reversion per unit of time."""
        draws, step = dict(posterior.draws), self.series_.step
        if "scale_offset" in draws:
            draws["log_scale"] = log_scale(self.series_, draws)
        if self._single:
            draws = {k: v[..., 0] if v.dim() == 3 else v for k, v in draws.items()}
        hurst = draws["hurst"]
        sites = {"hurst": hurst, "scale": torch.exp(draws["log_scale"]) * step**-hurst}
        if "log_noise" in draws:
            sites["noise"] = torch.exp(draws["log_scale"] + draws["log_noise"] / 2)
        if "log_reversion" in draws:
            sites["reversion"] = torch.exp(draws["log_reversion"]) / step
        clock = Clock.of(self.series_)
        return HurstPosterior(sites, clock, series=self.series_, settings=self._settings())

    def _posterior(self) -> HurstPosterior:
        result = getattr(self, "result_", None)
        if result is None:
            raise ConfigurationError(
                message("The model is not fitted", remedy="call fit(y, times) first")
            )
        assert isinstance(result.posterior, HurstPosterior)
        return result.posterior

    def _data(self) -> Series:
        self._posterior()
        if not hasattr(self, "series_"):
            raise ConfigurationError(
                message(
                    "A loaded model does not hold its data",
                    remedy="fit again for comparisons, replicates and pictures of the data",
                )
            )
        return self.series_

    def _settings(self) -> dict[str, Any]:
        names = ("kind", "noise", "reversion", "grid_size", "num_samples", "seed")
        return {name: getattr(self, name) for name in names}
