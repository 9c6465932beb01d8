"""``probkit list``: what can be named on the command line."""

from __future__ import annotations

import json
from typing import Annotated

import typer

__all__ = ["show"]


def show(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Families, bundled data sets and named problems."""
    from probkit.cli.main import family_modules
    from probkit.datasets import DATASETS

    sections: dict[str, dict[str, str]] = {"families": {}, "data sets": dict(DATASETS)}
    for name, module in family_modules():
        sections["families"][name] = str(module.app.info.help)
        named = getattr(module, "named_problems", None)
        if named is not None:
            sections[f"{name} problems"] = named()
    if as_json:
        typer.echo(json.dumps(sections, indent=2))
        return
    for title, entries in sections.items():
        typer.echo(f"{title}:")
        width = max((len(name) for name in entries), default=0)
        for name, text in entries.items():
            typer.echo(f"  {name:{width}s}  {text}")
