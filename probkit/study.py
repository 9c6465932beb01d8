"""What the studies of all families share: where they write, what they report, and their device.

A study's ``run()`` is a generator: it yields the lines that a reader should see as they come, and
returns the record of the run, which is also ``report.json`` in the directory (see
:mod:`probkit.report` for its sections). A loop over it prints; ``yield from`` hands the record on.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import torch

from probkit.errors import ConfigurationError, message
from probkit.infer.provenance import versions
from probkit.infer.result import FitResult
from probkit.report import to_plain, write_report

__all__ = [
    "CHECKPOINT",
    "Lines",
    "check_directory",
    "close_study",
    "ending",
    "fit_sections",
    "relative_figures",
    "to_device",
]

Lines = Generator[str, None, dict[str, Any]]
"""Lines for a reader as they come, and in the end the record of the run."""

CHECKPOINT = "checkpoint"
"""Folder of a run's directory that a later run goes on from."""


def check_directory(out: Path, *, resume: bool = False, resumable: bool = False) -> None:
    """A study does not write over another one; nothing is made here.

    Args:
        out: where the study will write.
        resume: whether it goes on with an interrupted one.
        resumable: whether this kind of study can, for the remedy.

    Raises:
        ConfigurationError: the directory holds something, and it is no resumption, or holds no
            checkpoint to resume from; or it is a file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     check_directory(Path(folder) / "new")
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return  # with resume too: a job that is queued again says it before there is anything
    if out.is_dir() and resume:
        if (out / CHECKPOINT).exists():
            return
        raise ConfigurationError(
            message(
                "There is nothing to resume from",
                where="--out",
                got=str(out),
                expected=f"a folder {CHECKPOINT!r} in it, as an interrupted run leaves it",
                remedy="give the directory of that run, or a new one without --resume",
            )
        )
    more = ", or add --resume to go on with an interrupted run" if resumable else ""
    raise ConfigurationError(
        message(
            "The output directory is not empty" if out.is_dir() else "The output is a file",
            where="--out",
            got=str(out),
            expected="a new or empty directory",
            remedy=f"choose another one{more}",
        )
    )


def ending(result: FitResult) -> str:
    """One line on how a fit ended, with the remedy if there is one."""
    status = result.status
    return f"{status.value}: {status.message} {status.remedy}".rstrip()


def fit_sections(result: FitResult) -> dict[str, Any]:
    """The sections of a report that any fit fills: status with verdict, diagnostics, versions."""
    status, verdict = result.status, result.verdict
    return {
        "status": {
            "name": status.value,
            "message": status.message,
            "remedy": status.remedy,
            "detail": result.detail,
            "verdict": verdict.colour,
            "reasons": list(verdict.reasons),
        },
        "diagnostics": dict(result.diagnostics),
        "versions": versions(),
    }


def relative_figures(figures: Mapping[str, Path], out: Path) -> dict[str, str]:
    """Figures by caption, with their paths relative to the report."""
    return {caption: path.relative_to(out).as_posix() for caption, path in figures.items()}


def close_study(out: Path, record: Mapping[str, Any]) -> Lines:
    """Write the report, say where it is, and return its record with JSON's types only."""
    yield f"report: {write_report(out, record)}"
    plain: dict[str, Any] = to_plain(record)
    return plain


def to_device(name: str) -> torch.device:
    """The device of a name: "cpu", "cuda", "cuda:1", or "auto" for a GPU if there is one.

    Raises:
        ConfigurationError: no such device here.

    Example:
        >>> to_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        known = device.type in ("cpu", "cuda")
    except RuntimeError:  # torch's answer to a word that is no device
        known = False
    if not known:
        raise ConfigurationError(
            message("Unknown device", where="--device", got=repr(name), expected="cpu, cuda, auto")
        )
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ConfigurationError(
            message(
                "This device is not there",
                where="--device",
                got=name,
                expected=f"cpu, or one of {count} CUDA devices" if count else "cpu",
                remedy="probkit doctor shows what torch sees",
            )
        )
    return device
