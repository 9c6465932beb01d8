"""A whole study of one table: hold out, fit, score against baselines, report and draw.

This is what ``probkit tensor fit`` runs; everything in it is public API.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probkit.datasets import DATASETS, WHOLE, holdout, load_dataset
from probkit.errors import ConfigurationError, DataError, message
from probkit.infer import CAVI, CVI
from probkit.io import Table, read_table, write_table
from probkit.plot import plot_calibration, plot_factors, plot_history, plot_maps
from probkit.report import baseline_scores, regression_scores
from probkit.study import (
    CHECKPOINT,
    Lines,
    check_directory,
    close_study,
    ending,
    fit_sections,
    relative_figures,
    to_device,
)
from probkit.tensor.estimator import FunctionalTucker

__all__ = ["Study", "predict_file", "redraw"]

_LEVELS = (0.025, 0.05, 0.25, 0.75, 0.95, 0.975)
_NOMINAL = (0.5, 0.9, 0.95)


@dataclass(frozen=True)
class Study:
    """Settings of a study; see ``probkit tensor fit --help``.

    Args:
        data: name of a bundled data set or path of a file.
        out: directory for results; must be empty or absent unless ``resume``.
    """

    data: str
    out: Path
    inputs: Sequence[str] | None = None
    target: str | None = None
    rank: str | int | Sequence[int] = "auto"
    max_rank: int = 8
    structure: str = "tucker"
    kernel: str = "matern12"
    likelihood: str = "auto"
    test_fraction: float = 0.1
    seed: int = 0
    max_sweeps: int = 2000
    resume: bool = False
    progress: bool = True
    device: str = "cpu"

    def run(self) -> Lines:
        """Run the study; yields lines for the terminal, returns the record.

        Raises:
            ConfigurationError: the output directory holds something already.
            DataError: data that cannot be read or used.
        """
        check_directory(self.out, resume=self.resume, resumable=True)
        device = to_device(self.device)
        table = self.load()
        test, labels = holdout(
            table, fraction=self.test_fraction, seed=self.seed, whole=WHOLE.get(self.data)
        )
        yield (
            f"{table.name}: {table.y.shape[0]} entries of {table.target} over "
            f"{', '.join(table.inputs)}; {int(test.sum())} held out"
        )
        model = self.model(table)
        model.fit(
            table.x[~test].to(device),
            table.y[~test].to(device),
            checkpoint=self.out / CHECKPOINT,
            resume=self.resume,
            progress=self.progress,
        )
        model.save(self.out)
        yield ending(model.result_)
        yield f"ranks {model.result_.diagnostics.get('ranks')}"
        # the table stays on the CPU, and so does everything after the fit
        model = model if device.type == "cpu" else FunctionalTucker.load(self.out)
        record = self._record(model, table, test, labels)
        record["figures"] = relative_figures(self._draw(model, table, test), self.out)
        yield from _score_lines(record["scores"])
        return (yield from close_study(self.out, record))

    def load(self) -> Table:
        """The table that ``data`` names."""
        if self.data in DATASETS:
            return load_dataset(self.data)
        if not Path(self.data).suffix:
            raise DataError(
                message(
                    "There is no such data set or file",
                    where="DATA",
                    got=self.data,
                    expected="a file, or one of " + ", ".join(DATASETS),
                )
            )
        return read_table(self.data, inputs=self.inputs, target=self.target)

    def model(self, table: Table) -> FunctionalTucker:
        """The estimator with the study's settings."""
        engine: CAVI = CAVI(max_sweeps=self.max_sweeps)
        if self.likelihood in ("poisson", "bernoulli", "negative_binomial"):
            engine = CVI(max_sweeps=self.max_sweeps)
        return FunctionalTucker(
            self.rank,
            structure=self.structure,
            kernels=_kernels(self.kernel, table),
            likelihood=self.likelihood,
            max_rank=self.max_rank,
            engine=engine,
            seed=self.seed,
            input_names=table.inputs,
        )

    def _record(
        self, model: FunctionalTucker, table: Table, test: Tensor, labels: list[str]
    ) -> dict[str, Any]:
        result, found = model.result_, [labels[i] for i in torch.nonzero(test)[:, 0].tolist()]
        scores: dict[str, dict[str, dict[str, float]]] = {}
        train_x, train_y = table.x[~test], table.y[~test]
        for label in dict.fromkeys(found):
            rows = torch.tensor([own == label for own in labels])
            x, y = table.x[rows], table.y[rows]
            scores[label] = {"probkit": _scores(model, x, y)}
            scores[label] |= baseline_scores(train_x, train_y, x, y)
        return {
            "title": f"Functional Tucker decomposition of {table.name}",
            "study": {"family": "tensor", "command": "fit"},
            "data": {
                "source": DATASETS.get(self.data, self.data),
                "entries": table.y.shape[0],
                "missing": table.num_missing,
                "target": table.target,
                "coordinates": ", ".join(table.inputs),
            },
            "held_out": {label: f"{found.count(label)} entries" for label in scores},
            "scores": scores,
            "ranks": result.diagnostics.get("ranks"),
            **fit_sections(result),
        }

    def _draw(self, model: FunctionalTucker, table: Table, test: Tensor) -> dict[str, Path]:
        folder = self.out / "figures"
        figures = draw(model, folder)
        if bool(test.any()):
            quantiles = model.predict(table.x[test], quantiles=_LEVELS)["quantiles"]
            coverage = [
                float(((table.y[test] >= low) & (table.y[test] <= high)).double().mean())
                for low, high in zip(quantiles[[2, 1, 0]], quantiles[[3, 4, 5]], strict=True)
            ]
            figures["Calibration on the held-out entries"] = plot_calibration(
                _NOMINAL, coverage, folder / "calibration.png"
            )
        maps = _draw_maps(model, table, folder / "maps.png")
        if maps is not None:
            figures[f"Observed, mean and sd at one {table.inputs[0]}"] = maps
        return figures


def draw(model: FunctionalTucker, folder: Path) -> dict[str, Path]:
    """The figures of a fit that need no data, by caption."""
    history = plot_history(model.result_.history, folder / "elbo.png")
    factors = plot_factors(model.factors(), model.input_names_, folder / "factors.png")
    return {"Objective by sweep": history, "Factors": factors}


def redraw(directory: Path) -> dict[str, Path]:
    """Draw the figures of a saved fit that need no data again; paths by caption.

    Raises:
        CheckpointError: there is no readable fit in the directory.
    """
    return draw(FunctionalTucker.load(directory), directory / "figures")


def predict_file(directory: Path, points: Path, out: Path | None, levels: Sequence[float]) -> Path:
    """Predict at the points of a file with a saved fit; writes mean, sd and quantiles."""
    model = FunctionalTucker.load(directory)
    table = read_table(points, inputs=model.input_names_, needs_target=False)
    result = model.predict(table.x, quantiles=levels)
    columns = {name: table.x[:, k].numpy() for k, name in enumerate(table.inputs)}
    columns |= {"mean": result["mean"].numpy(), "sd": result["sd"].numpy()}
    for level, values in zip(levels, result["quantiles"], strict=True):
        columns[f"q{100 * level:g}"] = values.numpy()
    return write_table(out or points.with_name(f"{points.stem}_predicted.csv"), columns)


def _scores(model: FunctionalTucker, x: Tensor, y: Tensor) -> dict[str, float]:
    result = model.predict(x, quantiles=_LEVELS)
    quantiles = dict(zip(_LEVELS, result["quantiles"], strict=True))
    density = model.result_.log_likelihood(x, y)
    return regression_scores(y, result["mean"], result["sd"], quantiles, density)


def _score_lines(scores: dict[str, dict[str, dict[str, float]]]) -> Iterator[str]:
    heads = " ".join(f"{name:>9s}" for name in ("RMSE", "MAE", "NLL"))
    yield f"{'held out':14s} {'method':34s} {heads} {'cover 90 %':>11s}"
    for label, methods in scores.items():
        for method, values in methods.items():
            figures = [values.get(n, float("nan")) for n in ("rmse", "mae", "nll", "coverage_90")]
            text = " ".join(f"{v:9.4g}" for v in figures[:3])
            yield f"{label:14s} {method:34s} {text} {figures[3]:11.3f}"


def _kernels(text: str, table: Table) -> str | list[str]:
    """One name, one a mode, or ``input=name`` pairs; categories get the categorical kernel."""
    default = ["categorical" if kind == "category" else "matern12" for kind in table.kinds]
    parts = [part.strip() for part in text.split(",")]
    if any("=" in part for part in parts):
        for part in parts:
            name, _, kernel = part.partition("=")
            if name not in table.inputs:
                raise ConfigurationError(
                    message(
                        "Unknown input",
                        where="--kernel",
                        got=part,
                        expected="input=kernel with an input among " + ", ".join(table.inputs),
                    )
                )
            default[table.inputs.index(name)] = kernel
        return default
    if len(parts) > 1:
        return parts
    return [k if k == "categorical" else parts[0] for k in default]


def _draw_maps(model: FunctionalTucker, table: Table, path: Path) -> Path | None:
    """Maps over the last two of three coordinates at the middle value of the first."""
    if len(table.inputs) != 3 or "category" in table.kinds:
        return None
    axes = [torch.unique(column) for column in table.x.T]
    if len(axes[1]) * len(axes[2]) > 40_000 or min(len(axes[1]), len(axes[2])) < 2:
        return None
    middle = axes[0][len(axes[0]) // 2]
    mesh = torch.cartesian_prod(axes[1], axes[2])
    points = torch.cat([middle.expand(len(mesh), 1), mesh], 1)
    mean, sd = model.predict(points, return_sd=True)
    shape = (len(axes[1]), len(axes[2]))
    observed = np.full(shape, np.nan)
    rows = table.x[:, 0] == middle
    i = torch.searchsorted(axes[1], table.x[rows, 1].contiguous())
    j = torch.searchsorted(axes[2], table.x[rows, 2].contiguous())
    observed[i.numpy(), j.numpy()] = table.y[rows].numpy()
    title = f"{table.inputs[0]} = {float(middle):g}"
    panels = {
        f"observed, {title}": observed,
        "mean": mean.reshape(shape).numpy(),
        "sd": sd.reshape(shape).numpy(),
    }
    labels = (table.inputs[2], table.inputs[1], table.target)
    return plot_maps(panels, axes[2], axes[1], labels, path)
