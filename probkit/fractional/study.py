"""A whole study of one series: how rough it is, what follows it, and whether the model fits.

This is what ``probkit fractional hurst`` runs; everything in it is public API.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from probkit.datasets import DATASETS, load_dataset
from probkit.errors import ConfigurationError, DataError, ProbkitWarning, message
from probkit.fractional.figures import plot_hurst
from probkit.fractional.hurst import HurstModel
from probkit.io import ROW, Table, read_series, write_table
from probkit.study import (
    Lines,
    check_directory,
    close_study,
    ending,
    fit_sections,
    relative_figures,
)

__all__ = ["HurstStudy", "load_series", "redraw"]

_SMOKE = 300
_LEVELS = (0.05, 0.95)
_BROWNIAN = 0.5
_CAPTIONS = {
    "forecast": "Data and forecast with 90 % interval",
    "posterior": "Posterior of the Hurst index",
    "variogram": "Variogram: the data should stay inside the band",
}


@dataclass(frozen=True)
class HurstStudy:
    """Settings of a study; see ``probkit fractional hurst --help``.

    Args:
        data: name of a bundled data set or path of a file.
        out: directory for results; must be empty or absent.
        kind: "levels" or "increments".
        column: of the values; None for the last one (bundled: the target).
        time: of the times, numbers or dates; None for row numbers (bundled: the first input).
        noise, reversion: as of :class:`HurstModel`.
        center: subtract the mean of increments first; forecasts have it again.
        horizon: steps to forecast; a step is the smallest distance of two times.
        seed: of draws.
        smoke: look at the last 300 values only, on a coarse grid.
    """

    data: str
    out: Path
    kind: str
    column: str | None = None
    time: str | None = None
    noise: bool = True
    reversion: bool = False
    center: bool = False
    horizon: int = 20
    seed: int = 0
    smoke: bool = False

    def run(self) -> Lines:
        """Run the study; yields lines for the terminal, returns the record.

        Raises:
            ConfigurationError: the output directory holds something already, or settings that
                contradict each other.
            DataError: data that cannot be read or used.
        """
        self._check()
        model = self._model(self.noise)
        table = load_series(self.data, self.column, self.time)
        times, y = table.x[:, 0], table.y
        if self.smoke:
            times, y = times[-_SMOKE:], y[-_SMOKE:]
        unit = _unit(table)
        mean = float(y.nanmean()) if self.center else 0.0
        yield (
            f"{table.name}: {len(y)} {self.kind} of {table.target}, "
            f"{int(y.isnan().sum())} missing; times: {table.inputs[0]}, unit of time: {unit}"
        )
        told = _fit(model, y - mean, times)
        bare = self._model(False) if self.noise else None
        if bare is not None:
            less = _fit(bare, y - mean, times)
            told += [f"with noise left out: {text}" for text in less if text not in told]
        yield from (f"warning: {text}" for text in told)
        model.result_.diagnostics["warnings"] = told
        model.check(num_samples=200, seed=self.seed)
        model.save(self.out)
        estimates = _estimates(model, bare)
        yield from _lines(estimates, table, unit)
        factors = {"free H against H = 1/2": float(model.compare(_BROWNIAN))}
        if bare is not None and model.grid_ is not None and bare.grid_ is not None:
            gain = model.grid_.log_evidence - bare.grid_.log_evidence
            factors["noise against none"] = float(gain)
        yield from (f"log Bayes factor, {name}: {value:.1f}" for name, value in factors.items())
        yield ending(model.result_)
        record = {
            "title": f"How rough is {table.target} of {table.name}?",
            "study": {"family": "fractional", "command": "hurst"},
            "data": self._described(table, model, unit, len(y)),
            "estimates": estimates,
            **fit_sections(model.result_),
            "diagnostics": {
                **{f"log Bayes factor, {name}": value for name, value in factors.items()},
                **self._forecast(model, table, mean),
                "warnings": told,
            },
            "figures": relative_figures(self._draw(model, table, unit), self.out),
        }
        return (yield from close_study(self.out, record))

    def _model(self, noise: bool) -> HurstModel:
        return HurstModel(
            self.kind,
            noise=noise,
            reversion=self.reversion,
            grid_size=21 if self.smoke else 61,
            num_samples=200 if self.smoke else 1000,
            seed=self.seed,
        )

    def _check(self) -> None:
        if self.center and self.kind == "levels":
            raise ConfigurationError(
                message(
                    "Only increments have a mean to subtract; levels have one of their own",
                    where="--center",
                    remedy="leave it out, or say --kind increments",
                )
            )
        if self.horizon < 1:
            raise ConfigurationError(
                message("A forecast has a step", where="--horizon", got=self.horizon, expected=">0")
            )
        check_directory(self.out)

    def _described(self, table: Table, model: HurstModel, unit: str, num: int) -> dict[str, Any]:
        return {
            "source": DATASETS.get(self.data, self.data),
            "values": f"{num} {self.kind} of {table.target}",
            **({"mean subtracted": "yes"} if self.center else {}),
            "missing": model.result_.diagnostics["num_missing"],
            "times": table.inputs[0],
            "unit of time": unit,
            "step": model.series_.step,
            "model": ", ".join(
                ["fractional Brownian motion"] * (not self.reversion)
                + ["fractional Ornstein-Uhlenbeck process"] * self.reversion
                + ["observation noise" if self.noise else "no observation noise"]
            ),
        }

    def _ahead(self, model: HurstModel) -> Tensor:
        steps = torch.arange(1, self.horizon + 1, dtype=torch.float64)
        return model.series_.last_time + model.series_.step * steps

    def _forecast(self, model: HurstModel, table: Table, level: float) -> dict[str, str]:
        """Writes ``forecast.csv``; returns the last line of it in words."""
        ahead = self._ahead(model)
        found = model.predict(ahead, quantiles=_LEVELS)
        low, high = found["quantiles"] + level
        found["mean"] = found["mean"] + level
        columns = {table.inputs[0]: _dates(ahead, table), "mean": found["mean"], "sd": found["sd"]}
        write_table(self.out / "forecast.csv", {**columns, "q5": low, "q95": high})
        mean, bottom, top = (float(part[-1]) for part in (found["mean"], low, high))
        text = f"{mean:.4g}, 90 % in {bottom:.4g} to {top:.4g}"
        return {f"forecast after {self.horizon} steps (forecast.csv)": text}

    def _draw(self, model: HurstModel, table: Table, unit: str) -> dict[str, Path]:
        labels = (f"{table.inputs[0]} ({unit}s)" if unit == "day" else unit, table.target)
        found = {}
        for what, caption in _CAPTIONS.items():
            path = self.out / "figures" / f"{what}.png"
            found[caption] = plot_hurst(model, path, what, self._ahead(model), 0, labels)
        return found


def redraw(directory: Path) -> dict[str, Path]:
    """Draw the figures of a saved fit that need no data again; paths by caption.

    Raises:
        CheckpointError: there is no readable fit in the directory.
    """
    path = directory / "figures" / "posterior.png"
    return {_CAPTIONS["posterior"]: HurstModel.load(directory).plot(path, what="posterior")}


def _fit(model: HurstModel, y: Tensor, times: Tensor) -> list[str]:
    """Fit; returns what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ProbkitWarning)
        model.fit(y, times)
    return list(dict.fromkeys(str(w.message) for w in caught))


def load_series(data: str, column: str | None = None, time: str | None = None) -> Table:
    """A bundled series by name, or one of a file; missing values are NaN.

    Args:
        data: name or path.
        column, time: as of :class:`HurstStudy`.

    Raises:
        DataError: no such data set, file or column, or times that are neither numbers nor dates.
    """
    if data not in DATASETS and not Path(data).suffix:
        raise DataError(
            message(
                "There is no such data set or file",
                where="SERIES",
                got=data,
                expected="a file, or a series by name (probkit list)",
            )
        )
    if data not in DATASETS:
        table = read_series(data, target=column, time=time)
    else:
        table = _bundled(load_dataset(data), column, time)
    if table.kinds[0] == "category":
        raise DataError(
            message(
                "Times are neither numbers nor dates",
                where="--time",
                got=f"{table.inputs[0]}: {', '.join(table.levels[table.inputs[0]][:3])}",
                expected="numbers, or ISO dates: 2020-01-31",
            )
        )
    return table


def _bundled(table: Table, column: str | None, time: str | None) -> Table:
    names = {"--column": (column, (table.target,)), "--time": (time, table.inputs)}
    for where, (got, known) in names.items():
        if got is not None and got not in known:
            raise DataError(
                message(
                    "The data set has no such column",
                    where=where,
                    got=got,
                    expected="one of " + ", ".join(known),
                )
            )
    index = table.inputs.index(time) if time else 0
    return Table(
        table.x[:, [index]],
        table.y,
        (table.inputs[index],),
        table.target,
        (table.kinds[index],),
        table.levels,
        table.num_missing,
        table.name,
    )


def _unit(table: Table) -> str:
    """One unit of time, in words."""
    if table.kinds[0] == "datetime":
        return "day"
    return "row" if table.inputs[0] == ROW else table.inputs[0]


def _dates(times: Tensor, table: Table) -> Any:
    if table.kinds[0] != "datetime":
        return times
    return times.mul(86400).round().long().numpy().astype("datetime64[s]")


def _estimates(model: HurstModel, bare: HurstModel | None) -> dict[str, dict[str, float]]:
    posterior = model.result_.posterior
    found = _moments(posterior)
    if bare is not None:
        found["hurst, noise left out"] = _moments(bare.result_.posterior)["hurst"]
    return found


def _moments(posterior: Any) -> dict[str, dict[str, float]]:
    mean, sd, ends = posterior.mean(), posterior.sd(), posterior.quantile(_LEVELS)
    return {
        name: {
            "mean": float(mean[name]),
            "sd": float(sd[name]),
            "5 %": float(ends[name][0]),
            "95 %": float(ends[name][1]),
        }
        for name in mean
    }


def _lines(estimates: dict[str, dict[str, float]], table: Table, unit: str) -> Iterator[str]:
    meanings = {
        "hurst": "Hurst index; 1/2 is Brownian motion, less is rougher",
        "scale": f"sd of the change of {table.target} over one {unit}",
        "noise": f"sd of the observation noise, in {table.target}",
        "reversion": f"rate of mean reversion per {unit}",
    }
    for name, row in estimates.items():
        text = f"{name}: {row['mean']:.4g} ± {row['sd']:.2g}"
        text += f", 90 % in {row['5 %']:.4g} to {row['95 %']:.4g}"
        yield f"{text}  {meanings.get(name, '')}".rstrip()
