"""``probkit tensor fit`` and ``probkit tensor predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(
    help="Functional Bayesian Tucker decomposition: tensors with continuous indexes.",
    no_args_is_help=True,
)

_Names = Annotated[str | None, typer.Option(help="Coordinate columns, separated by commas.")]


@app.command()
def fit(
    data: Annotated[
        str, typer.Argument(help="A bundled data set's name, or a CSV, Parquet or netCDF file.")
    ],
    out: Annotated[Path, typer.Option(help="Directory for the result.")],
    inputs: _Names = None,
    target: Annotated[str | None, typer.Option(help="Target column or variable.")] = None,
    rank: Annotated[str, typer.Option(help='"auto", a number, or one a mode: 3,4,2.')] = "auto",
    max_rank: Annotated[int, typer.Option(help="Largest rank of the search.")] = 8,
    structure: Annotated[str, typer.Option(help="tucker or cp.")] = "tucker",
    kernel: Annotated[
        str, typer.Option(help="One name, one a mode (a,b,c), or input=name pairs.")
    ] = "matern12",
    likelihood: Annotated[
        str, typer.Option(help="auto, gaussian, student_t, poisson, bernoulli, negative_binomial.")
    ] = "auto",
    test_fraction: Annotated[float, typer.Option(help="Share of entries held out.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Of the hold-out and the fit.")] = 0,
    max_sweeps: Annotated[int, typer.Option(help="Limit on the number of sweeps.")] = 2000,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from OUT/checkpoint.")] = False,
    smoke: Annotated[bool, typer.Option("--smoke", help="Small and quick, to try it out.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Fit a tensor, score it on held-out entries, write result, report and figures to OUT."""
    from probkit.tensor.study import Study

    study = Study(
        data=data,
        out=out,
        inputs=_split(inputs),
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
        progress=not quiet,
    )
    for line in study.run():
        typer.echo(line)


@app.command()
def predict(
    directory: Annotated[Path, typer.Argument(help="Directory of a finished fit.")],
    points: Annotated[Path, typer.Argument(help="File with the coordinates as columns.")],
    out: Annotated[
        Path | None, typer.Option(help="Output file; default POINTS_predicted.csv.")
    ] = None,
    quantiles: Annotated[str, typer.Option(help="Levels, separated by commas.")] = "0.05,0.95",
) -> None:
    """Predict new observations at the points of a file."""
    from probkit.tensor.study import predict_file

    levels = tuple(float(level) for level in quantiles.split(","))
    typer.echo(f"wrote {predict_file(directory, points, out, levels)}")


def _split(text: str | None) -> list[str] | None:
    return [part.strip() for part in text.split(",")] if text else None


def _rank(text: str) -> str | int | list[int]:
    from probkit.errors import ConfigurationError, message

    if text == "auto":
        return text
    try:
        ranks = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigurationError(
            message(
                "Unreadable rank",
                where="--rank",
                got=repr(text),
                expected='"auto", a number, or numbers separated by commas',
            )
        ) from error
    return ranks[0] if len(ranks) == 1 else ranks
