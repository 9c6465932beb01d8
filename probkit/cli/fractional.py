"""``probkit fractional hurst``."""

from __future__ import annotations

from typing import Annotated

import typer

from probkit.cli.options import Out, Seed, Smoke
from probkit.cli.running import Lines, command
from probkit.cli.words import check_files, complete
from probkit.dataset_names import DATASETS

__all__ = ["app"]

app = typer.Typer(
    help="Fractional Brownian motion: how rough is a series?",
    no_args_is_help=True,
)


@app.callback()
def _family() -> None:
    """A callback keeps ``hurst`` a command of its own name while it is the only one."""


@command(app)
def hurst(
    series: Annotated[
        str,
        typer.Argument(
            metavar="SERIES",
            help="A bundled series' name, or a CSV, Parquet or netCDF file.",
            autocompletion=complete(DATASETS),
        ),
    ],
    kind: Annotated[str, typer.Option(help="What the values are: levels or increments.")],
    out: Out,
    column: Annotated[
        str | None, typer.Option(help="Column of the values; default the last one.")
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(help="Column of the times, numbers or dates; default row numbers."),
    ] = None,
    noise: Annotated[bool, typer.Option(help="Whether values carry observation noise.")] = True,
    reversion: Annotated[bool, typer.Option(help="Whether the level reverts to a mean.")] = False,
    center: Annotated[bool, typer.Option(help="Subtract the mean of increments first.")] = False,
    horizon: Annotated[int, typer.Option(help="Steps to forecast.")] = 20,
    seed: Seed = 0,
    smoke: Smoke = False,
) -> Lines:
    """Find how rough a series is; write result, forecast, report and figures to OUT.

    With ``--smoke`` the last 300 values are fitted, coarsely.
    """
    check_files(series)
    from probkit.fractional.study import HurstStudy

    study = HurstStudy(
        data=series,
        out=out,
        kind=kind,
        column=column,
        time=time,
        noise=noise,
        reversion=reversion,
        center=center,
        horizon=horizon,
        seed=seed,
        smoke=smoke,
    )
    return study.run()
