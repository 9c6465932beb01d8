"""The whole command: one sub-command a family, plus ``list``, ``report`` and ``doctor``.

Nothing heavy is imported before a command runs, so that ``probkit --help`` and shell completion are
quick. A family's commands are the ``app`` of ``probkit/cli/FAMILY.py``; a family that is not there
is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Annotated, Any

import typer

from probkit.cli import doctor, listing, runs
from probkit.cli.running import command

__all__ = ["build", "family_modules"]

_FAMILIES = ("tensor", "sparse", "pde", "fractional", "similarity")


def family_modules() -> Iterator[tuple[str, ModuleType]]:
    """Names and command modules of the families that are installed."""
    for name in _FAMILIES:
        if find_spec(f"probkit.cli.{name}") is not None:
            yield name, import_module(f"probkit.cli.{name}")


def build() -> Any:
    """The command with all its sub-commands."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # boxes take most of a screen, and rich most of the start-up
        callback=_probkit,
    )
    for name, module in family_modules():
        app.add_typer(module.app, name=name)
    command(app, "list")(listing.show)
    command(app)(runs.report)
    command(app)(doctor.doctor)
    return typer.main.get_command(app)


def _version(wanted: bool) -> None:
    if wanted:
        from probkit import __version__

        print(f"probkit {__version__}")
        raise typer.Exit


def _probkit(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_version),
    ] = False,
) -> None:
    """Structured, calibrated Bayesian models. Each COMMAND has its own --help."""
