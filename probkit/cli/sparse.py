"""``probkit sparse recover`` and ``probkit sparse irs``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from probkit.cli.options import Device, Out, Resume, Seed, Smoke
from probkit.cli.running import Lines, command
from probkit.cli.words import check_files, numbers, split

__all__ = ["app"]

app = typer.Typer(
    help="Sparse recovery with Kronecker dictionaries.",
    no_args_is_help=True,
)


@command(app)
def recover(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="npz file: y, A_1, ..., A_I; noise, x if known.")
    ],
    out: Out,
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
    max_sweeps: Annotated[
        int | None, typer.Option(help="Limit on the number of sweeps.", min=1)
    ] = None,
    device: Device = "cpu",
    resume: Resume = False,
    smoke: Smoke = False,
    *,
    progress: bool,
) -> Lines:
    """Recover the sparse coefficients of a problem; write result, arrays and report to OUT."""
    check_files(data)
    from probkit.sparse.study import RecoverStudy

    study = RecoverStudy(
        data=data,
        out=out,
        method=method,
        noise=noise,
        snapshots=snapshots,
        order=order,
        progress=progress,
        max_steps=50 if smoke and max_sweeps is None else max_sweeps,
        device=device,
        resume=resume,
    )
    return study.run()


@command(app)
def irs(
    out: Out,
    snr: Annotated[str, typer.Option(help="Decibels, separated by commas.")] = "4,12,20",
    methods: Annotated[
        str, typer.Option(help='Separated by commas; "perfect" knows the channel.')
    ] = "evidence,paper_pattern_coupled,svd,am,perfect",
    num_channels: Annotated[int, typer.Option(help="Simulated channels for each SNR.", min=1)] = 10,
    seed: Seed = 0,
    device: Device = "cpu",
    smoke: Smoke = False,
) -> Lines:
    """Estimate simulated channels through a reflecting surface and compare methods."""
    from probkit.sparse.study import IRSStudy

    levels = numbers(snr, "--snr")
    study = IRSStudy(
        out=out,
        snr_db=levels[:1] if smoke else levels,
        methods=split(methods) or [],
        num_channels=2 if smoke else num_channels,
        num_symbols=1000 if smoke else 10_000,
        seed=seed,
        device=device,
    )
    return study.run()
