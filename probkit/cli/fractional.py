"""``probkit fractional hurst``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(
    help="Fractional Brownian motion: how rough is a series, and what follows it.",
    no_args_is_help=True,
)


@app.callback()
def _family() -> None:
    """A callback keeps ``hurst`` a command of its own name while it is the only one."""


@app.command()
def hurst(
    series: Annotated[
        str,
        typer.Argument(help="A bundled series' name, or a CSV, Parquet or netCDF file."),
    ],
    kind: Annotated[str, typer.Option(help="What the values are: levels or increments.")],
    out: Annotated[Path, typer.Option(help="Directory for the result.")],
    column: Annotated[
        str | None, typer.Option(help="Column of the values; default the last one.")
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(help="Column of the times, numbers or dates; default row numbers."),
    ] = None,
    noise: Annotated[bool, typer.Option(help="Whether values carry observation noise.")] = True,
    reversion: Annotated[bool, typer.Option(help="Whether the level reverts to a mean.")] = False,
    horizon: Annotated[int, typer.Option(help="Steps to forecast.")] = 20,
    seed: Annotated[int, typer.Option(help="Of posterior draws.")] = 0,
    smoke: Annotated[bool, typer.Option("--smoke", help="The last 300 values, coarsely.")] = False,
) -> None:
    """Find how rough a series is; write result, forecast, report and figures to OUT."""
    from probkit.fractional.study import HurstStudy

    study = HurstStudy(
        data=series,
        out=out,
        kind=kind,
        column=column,
        time=time,
        noise=noise,
        reversion=reversion,
        horizon=horizon,
        seed=seed,
        smoke=smoke,
    )
    for line in study.run():
        typer.echo(line)
