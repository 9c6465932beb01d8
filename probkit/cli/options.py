"""The options of all commands, each declared once: one name, one meaning, one line of help.

``SHARED`` belongs to every command and is added by :func:`probkit.cli.running.command`. The others
are for the commands where they have an effect.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["SHARED", "Device", "Out", "OutFile", "Resume", "Seed", "Smoke"]

Out = Annotated[
    Path, typer.Option("--out", help="Directory for the result: new or empty.", file_okay=False)
]
OutFile = Annotated[
    Path | None,
    typer.Option("--out", help="File to write; default beside the points.", dir_okay=False),
]
Seed = Annotated[int, typer.Option("--seed", help="Of everything random.", min=0)]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, or auto.")]
Smoke = Annotated[bool, typer.Option("--smoke", help="Small and quick, to try it out.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the interrupted run in OUT.")]

SHARED = {
    "as_json": Annotated[
        bool, typer.Option("--json", help="Print one JSON object; all else goes to stderr.")
    ],
    "quiet": Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")],
    "debug": Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")],
}
"""Flags of every command, by the name of their parameter; all are False by default."""
