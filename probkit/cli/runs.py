"""``probkit report``: the report of a finished run, once more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["report"]


def report(
    directory: Annotated[Path, typer.Argument(help="Directory of a finished run.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json instead.")] = False,
) -> None:
    """Write report.md of a finished run anew from its report.json, and print it."""
    from probkit.errors import DataError, message
    from probkit.report import write_report

    path = directory / "report.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            message(
                "there is no readable report",
                where="directory",
                got=f"{path} ({type(error).__name__})",
                expected="the directory given as --out to a run that finished",
            )
        ) from error
    if not isinstance(record, dict):
        raise DataError(
            message(
                "the report is not a table of sections",
                where="directory",
                got=f"{type(record).__name__} in {path}",
                expected="a report.json as probkit writes it",
            )
        )
    if as_json:
        typer.echo(json.dumps(record, indent=2, ensure_ascii=False))
        return
    try:
        written = write_report(directory, record)
    except Exception as error:  # a record that was altered by hand can fail in any way
        raise DataError(
            message(
                f"the report has sections of another type: {error}",
                where="directory",
                got=str(path),
                expected="a report.json as probkit writes it",
            )
        ) from error
    typer.echo(written.read_text(encoding="utf-8"))
