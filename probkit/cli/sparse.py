"""``probkit sparse recover`` and ``probkit sparse irs``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(
    help="Sparse Bayesian learning with Kronecker dictionaries, real or complex.",
    no_args_is_help=True,
)


@app.command()
def recover(
    data: Annotated[Path, typer.Argument(help="npz file: y, A_1, ..., A_I; noise, x if known.")],
    out: Annotated[Path, typer.Option(help="Directory for the result.")],
    method: Annotated[
        str, typer.Option(help="evidence, pattern_coupled, rank1, am, svd, ksbl, classic, ...")
    ] = "evidence",
    noise: Annotated[
        str, typer.Option(help='"learn", "noiseless", "file" (from DATA), or a variance.')
    ] = "learn",
    snapshots: Annotated[
        bool, typer.Option("--snapshots", help="The leading dimension of y holds snapshots.")
    ] = False,
    order: Annotated[str, typer.Option(help="Of flattened y: C or F (MATLAB).")] = "C",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Recover the sparse coefficients of a problem; write result, arrays and report to OUT."""
    from probkit.sparse.study import RecoverStudy

    study = RecoverStudy(
        data=data,
        out=out,
        method=method,
        noise=noise,
        snapshots=snapshots,
        order=order,
        progress=not quiet,
    )
    for line in study.run():
        typer.echo(line)


@app.command()
def irs(
    out: Annotated[Path, typer.Option(help="Directory for tables and figures.")],
    snr: Annotated[str, typer.Option(help="Decibels, separated by commas.")] = "4,12,20",
    methods: Annotated[
        str, typer.Option(help='Separated by commas; "perfect" knows the channel.')
    ] = "evidence,paper_pattern_coupled,svd,am,perfect",
    num_channels: Annotated[int, typer.Option(help="Simulated channels for each SNR.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the first channel.")] = 0,
    smoke: Annotated[bool, typer.Option("--smoke", help="Small and quick, to try it out.")] = False,
) -> None:
    """Estimate simulated channels through a reflecting surface and compare methods."""
    from probkit.errors import ConfigurationError, message
    from probkit.sparse.study import IRSStudy

    try:
        levels = [float(part) for part in snr.split(",")]
    except ValueError as error:
        raise ConfigurationError(
            message("Unreadable SNR", where="--snr", got=repr(snr), expected="numbers: 4,12,20")
        ) from error
    study = IRSStudy(
        out=out,
        snr_db=levels[:1] if smoke else levels,
        methods=[part.strip() for part in methods.split(",")],
        num_channels=2 if smoke else num_channels,
        num_symbols=1000 if smoke else 10_000,
        seed=seed,
    )
    for line in study.run():
        typer.echo(line)
