"""``probkit report``: report and figures of a finished run, once more."""

from __future__ import annotations

import json
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from probkit.cli.running import Lines
from probkit.errors import DataError, message

__all__ = ["report"]


def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of a finished run.")],
) -> Lines:
    """Render report and figures of a finished run once more.

    Writes report.md from report.json, and the figures that the saved result allows; prints the
    report. Figures that need the data (calibration, maps of observations) stay as they are.
    """
    record = _read(directory)
    from probkit.report import write_report
    from probkit.study import relative_figures

    drawn = _redraw(directory, record)
    if drawn:
        figures = record.get("figures")
        old = figures if isinstance(figures, dict) else {}
        record["figures"] = {**old, **relative_figures(drawn, directory)}
    try:
        written = write_report(directory, record)
    except Exception as error:  # a record that was altered by hand can fail in any way
        raise DataError(
            message(
                f"the report has sections of another type: {error}",
                where="directory",
                got=str(directory / "report.json"),
                expected="a report.json as probkit writes it",
            )
        ) from error
    yield written.read_text(encoding="utf-8")
    return record


def _read(directory: Path) -> dict[str, Any]:
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
    return record


def _redraw(directory: Path, record: dict[str, Any]) -> dict[str, Path]:
    """Figures by caption; none if the run left no result, or its family cannot draw it."""
    study = record.get("study")
    family = study.get("family") if isinstance(study, dict) else None
    from probkit.cli.application import family_modules

    known = {name for name, _ in family_modules()}
    if (
        not isinstance(family, str)
        or family not in known
        or not (directory / "manifest.json").exists()
    ):
        return {}
    name = f"probkit.{family}.study"
    redraw = getattr(import_module(name), "redraw", None) if find_spec(name) else None
    return {} if redraw is None else redraw(directory)
