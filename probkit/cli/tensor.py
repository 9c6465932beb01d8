"""``probkit tensor fit`` and ``probkit tensor predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from probkit.cli.options import Device, Out, OutFile, Resume, Seed, Smoke
from probkit.cli.running import Lines, command
from probkit.cli.words import check_files, complete, numbers, split
from probkit.dataset_names import DATASETS

__all__ = ["app"]

app = typer.Typer(
    help="Functional Tucker: tensors with continuous indexes.",
    no_args_is_help=True,
)

_Names = Annotated[str | None, typer.Option(help="Coordinate columns, separated by commas.")]


@command(app)
def fit(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A bundled data set's name, or a CSV, Parquet or netCDF file.",
            autocompletion=complete(DATASETS),
        ),
    ],
    out: Out,
    inputs: _Names = None,
    target: Annotated[str | None, typer.Option(help="Target column or variable.")] = None,
    rank: Annotated[str, typer.Option(help='"auto", a number, or one a mode: 3,4,2.')] = "auto",
    max_rank: Annotated[int, typer.Option(help="Largest rank of the search.", min=1)] = 8,
    structure: Annotated[str, typer.Option(help="tucker or cp.")] = "tucker",
    kernel: Annotated[
        str, typer.Option(help="One name, one a mode (a,b,c), or input=name pairs.")
    ] = "matern12",
    likelihood: Annotated[
        str, typer.Option(help="auto, gaussian, student_t, poisson, bernoulli, negative_binomial.")
    ] = "auto",
    test_fraction: Annotated[
        float, typer.Option(help="Share of entries held out.", min=0, max=1)
    ] = 0.1,
    max_sweeps: Annotated[int, typer.Option(help="Limit on the number of sweeps.", min=1)] = 2000,
    seed: Seed = 0,
    device: Device = "cpu",
    resume: Resume = False,
    smoke: Smoke = False,
    *,
    progress: bool,
) -> Lines:
    """Fit a tensor, score it on held-out entries, write result, report and figures to OUT."""
    check_files(data)
    from probkit.tensor.study import Study

    study = Study(
        data=data,
        out=out,
        inputs=split(inputs),
        target=target,
        rank=_rank(rank),
        max_rank=2 if smoke else max_rank,
        structure=structure,
        kernel=kernel,
        likelihood=likelihood,
        test_fraction=test_fraction,
        seed=seed,
        max_sweeps=max_sweeps,
        resume=resume,
        progress=progress,
        device=device,
    )
    return study.run()


@command(app)
def predict(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of a finished fit.")],
    points: Annotated[
        Path, typer.Argument(metavar="POINTS", help="File with the coordinates as columns.")
    ],
    out: OutFile = None,
    quantiles: Annotated[str, typer.Option(help="Levels, separated by commas.")] = "0.05,0.95",
) -> Lines:
    """Predict new observations at the points of a file."""
    from probkit.tensor.study import predict_file

    levels = tuple(numbers(quantiles, "--quantiles"))
    path = predict_file(directory, points, out, levels)
    yield f"wrote {path}"
    return {"file": str(path), "quantiles": list(levels)}


def _rank(text: str) -> str | int | list[int]:
    if text == "auto":
        return text
    ranks = cast(list[int], numbers(text, "--rank", int))
    return ranks[0] if len(ranks) == 1 else ranks
