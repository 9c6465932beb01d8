"""Measured figures as files: ``benchmarks/results/FAMILY.json``, one entry a row.

Rows take from seconds to an hour, so a file is filled row by row: a run replaces the rows that it
ran and keeps the others, each with its date, commit, machine and CPU seconds. The table in the
README is made from these files (``benchmarks/table.py``).
"""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "commit", "read", "stored_rows", "write_row"]

RESULTS = Path(__file__).with_name("results")


def read(path: Path) -> dict[str, Any]:
    """Entries by row id; empty if there is no such file."""
    if not path.is_file():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def write_row(
    path: Path, row: str, lines: list[dict[str, Any]], seconds: float, machine: str
) -> None:
    """Put the lines of one row into the file; a kill in between leaves the old file."""
    entries = read(path)
    entries[row] = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "machine": machine,
        "cpu_seconds": round(seconds, 1),
        "lines": [{k: v for k, v in line.items() if k != "id"} for line in lines],
    }
    ordered = dict(sorted(entries.items(), key=lambda entry: _order(entry[0])))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def stored_rows(path: Path) -> set[str]:
    """Ids of the rows in a file."""
    return set(read(path))


def commit() -> str | None:
    """Short name of the commit that is checked out, with a plus if files differ from it."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--exclude=*", "--dirty=+"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None  # not a checkout
    return found.stdout.strip()


def _order(row: str) -> tuple[str, int]:
    return row[0], int(row[1:])
