"""A whole study of one table: hold out, fit, score against baselines, report and draw.

This is what ``probkit tensor fit`` runs; everything in it is public API.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from probkit.baselines import Baselines
from probkit.datasets import DATASETS, WHOLE, holdout, load_dataset
from probkit.errors import ConfigurationError, DataError, message
from probkit.infer import CAVI, CVI
from probkit.infer.verdict import judge
from probkit.io import Table, read_table, write_table
from probkit.report import regression_scores
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
from probkit.tensor.figures import draw, draw_calibration, draw_maps
from probkit.validation import check_levels

__all__ = ["Study", "predict_file", "redraw"]

_LEVELS = (0.025, 0.05, 0.25, 0.75, 0.95, 0.975)


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
        yield from self._rank_lines(model, table)
        # the table stays on the CPU, and so does everything after the fit
        model = model if device.type == "cpu" else FunctionalTucker.load(self.out)
        record = self._record(model, table, test, labels)
        record["figures"] = relative_figures(self._draw(model, table, test, labels), self.out)
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
        table = read_table(self.data, inputs=self.inputs, target=self.target)
        twice = [name for name in table.inputs if table.inputs.count(name) > 1]
        bad = twice or [name for name in table.inputs if name == table.target]
        if bad:
            raise DataError(
                message(
                    "An input is named twice" if twice else "The target is among the inputs",
                    where="--inputs",
                    got=", ".join(table.inputs),
                    expected="different columns, none of them the target",
                    remedy=f"leave {bad[0]!r} out of the inputs" + " once" * bool(twice),
                )
            )
        return table

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
        result = model.result_
        scores: dict[str, dict[str, dict[str, float]]] = {}
        train_x, train_y = table.x[~test], table.y[~test]
        parts = _held_out(labels)
        baselines = Baselines(train_x, train_y)
        for label, rows in parts.items():
            x, y = table.x[rows], table.y[rows]
            scores[label] = {"probkit": _scores(model, x, y)}
            scores[label] |= baselines.scores(x, y)
        sections = fit_sections(result)
        coverage = {
            label: (own["probkit"]["coverage_90"], int(parts[label].sum()))
            for label, own in scores.items()
        }
        verdict = judge(result.status, {**result.diagnostics, "held_out_coverage": coverage})
        sections["status"] |= {"verdict": verdict.colour, "reasons": list(verdict.reasons)}
        # the study gave the estimator rows with a target only: the table's count is the true one
        sections["diagnostics"].pop("num_missing", None)
        ranks = sections["diagnostics"].pop("ranks", None)
        full = self._full_ranks(ranks, table)
        if full:
            sections["diagnostics"]["warnings"] = [full]
        return {
            "title": f"Functional Tucker decomposition of {table.name}",
            "study": {
                "family": "tensor",
                "command": "fit",
                "dates": _dates(table),
                "levels": dict(table.levels),
            },
            "data": {
                "source": DATASETS.get(self.data, self.data),
                "entries": table.y.shape[0],
                "entries without a target": table.num_missing,
                "target": table.target,
                "coordinates": ", ".join(table.inputs),
            },
            "held_out": {label: f"{int(rows.sum())} entries" for label, rows in parts.items()},
            "scores": scores,
            "ranks": dict(zip(table.inputs, ranks, strict=True)) if ranks else None,
            **sections,
        }

    def _rank_lines(self, model: FunctionalTucker, table: Table) -> Iterator[str]:
        ranks = model.result_.diagnostics.get("ranks")
        if ranks:
            pairs = zip(table.inputs, ranks, strict=True)
            yield "ranks " + ", ".join(f"{name} {rank}" for name, rank in pairs)
        full = self._full_ranks(ranks, table)
        if full:
            yield f"warning: {full}"

    def _full_ranks(self, ranks: Sequence[int] | None, table: Table) -> str:
        """What to say if the search for ranks ended at its limit, else nothing."""
        if self.rank != "auto" or not ranks:
            return ""
        sizes = [len(torch.unique(column)) for column in table.x.T]
        limits = [self.max_rank if self.structure == "cp" else min(self.max_rank, d) for d in sizes]
        if list(ranks) != limits or (self.structure == "tucker" and max(limits) < self.max_rank):
            return ""
        return (
            f"all ranks reached their limit (--max-rank {self.max_rank}); "
            "the data may support more: try a larger one"
        )

    def _draw(
        self, model: FunctionalTucker, table: Table, test: Tensor, labels: list[str]
    ) -> dict[str, Path]:
        folder = self.out / "figures"
        figures = draw(model, folder, _dates(table))
        if bool(test.any()):
            held_out = {
                label: (table.x[rows], table.y[rows]) for label, rows in _held_out(labels).items()
            }
            figures["Calibration, each hold-out by itself"] = draw_calibration(
                model, held_out, folder / "calibration.png"
            )
        maps = draw_maps(model, table, ~test, folder / "maps.png")
        return figures | ({} if maps is None else {maps[0]: maps[1]})


def redraw(directory: Path) -> dict[str, Path]:
    """Draw the figures of a saved fit that need no data again; paths by caption.

    Which inputs are dates is read from the report, if there is one.

    Raises:
        CheckpointError: there is no readable fit in the directory.
    """
    model = FunctionalTucker.load(directory)
    return draw(model, directory / "figures", _known(directory).get("dates", ()))


def predict_file(directory: Path, points: Path, out: Path | None, levels: Sequence[float]) -> Path:
    """Predict at the points of a file with a saved fit; writes mean, sd and quantiles.

    Categories are coded as the fit's report says, and written by name.

    Raises:
        CheckpointError: there is no readable fit in the directory.
        ConfigurationError: a level of a quantile outside (0, 1).
        DataError: no such file or column, a category that the fit does not know, values that
            cannot be read, or a coordinate with the name of a column that is to be written.
    """
    probabilities = check_levels("quantiles", levels)
    model, known = FunctionalTucker.load(directory), _known(directory).get("levels", {})
    written = ["mean", "sd", *(f"q{100 * level:g}" for level in probabilities)]
    taken = [name for name in model.input_names_ if name in written]
    if taken:
        raise DataError(
            message(
                f"The coordinate {taken[0]!r} has the name of a column of the predictions",
                where="columns",
                got=", ".join(model.input_names_),
                expected="names other than " + ", ".join(written),
                remedy="rename the column and fit again, or predict in Python",
            )
        )
    table = read_table(points, inputs=model.input_names_, needs_target=False, levels=known)
    _check_coded(table, known)
    result = model.predict(table.x, quantiles=probabilities)
    columns: dict[str, Any] = {}
    for name, values in zip(table.inputs, table.x.T, strict=True):
        names = table.levels.get(name)
        columns[name] = values.numpy() if names is None else [names[int(v)] for v in values]
    columns |= {"mean": result["mean"].numpy(), "sd": result["sd"].numpy()}
    if probabilities:
        columns |= dict(zip(written[2:], result["quantiles"].numpy(), strict=True))
    return write_table(out or points.with_name(f"{points.stem}_predicted.csv"), columns)


def _known(directory: Path) -> dict[str, Any]:
    """What the report of a fit says of its study; nothing if there is no report."""
    report = directory / "report.json"
    known = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}
    return dict(known.get("study", {}))


def _check_coded(table: Table, known: Mapping[str, Any]) -> None:
    """A file of points cannot say which code the fit gave to a name."""
    pairs = zip(table.inputs, table.kinds, strict=True)
    names = [name for name, kind in pairs if kind == "category" and name not in known]
    if names:
        raise DataError(
            message(
                f"Coordinate {names[0]!r} holds names, and the fit has kept no codes for it",
                where=table.name,
                got=", ".join(table.levels[names[0]][:5]),
                expected="numbers, or ISO dates: 2020-01-31",
                remedy="give the numbers of the fit, or fit again if its column held names",
            )
        )


def _scores(model: FunctionalTucker, x: Tensor, y: Tensor) -> dict[str, float]:
    result = model.predict(x, quantiles=_LEVELS)
    quantiles = dict(zip(_LEVELS, result["quantiles"], strict=True))
    density = model.result_.log_likelihood(x, y)
    return regression_scores(y, result["mean"], result["sd"], quantiles, density)


def _held_out(labels: list[str]) -> dict[str, Tensor]:
    """Mask of the rows of each hold-out, by label."""
    return {
        label: torch.tensor([own == label for own in labels])
        for label in dict.fromkeys(labels)
        if label
    }


def _dates(table: Table) -> list[str]:
    """Names of the inputs that are days since 1970-01-01."""
    pairs = zip(table.inputs, table.kinds, strict=True)
    return [name for name, kind in pairs if kind == "datetime"]


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
