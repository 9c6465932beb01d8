"""The ``probkit`` command: one sub-command a family, plus ``list``, ``report`` and ``doctor``.

Nothing heavy is imported before a command runs, so ``probkit --help`` is quick. A family's commands
are the ``app`` of ``probkit/cli/FAMILY.py``; a family that is not there is left out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

__all__ = ["family_modules", "main"]

_FAMILIES = ("tensor", "sparse", "pde", "fractional", "similarity")


def family_modules() -> Iterator[tuple[str, ModuleType]]:
    """Names and command modules of the families that are installed."""
    for name in _FAMILIES:
        if find_spec(f"probkit.cli.{name}") is not None:
            yield name, import_module(f"probkit.cli.{name}")


def main() -> None:
    """Entry point. Errors that probkit raises on purpose end with exit code 2 and no traceback."""
    try:
        import typer
    except ImportError:
        print('The command line needs typer: pip install "probkit[cli]"', file=sys.stderr)
        raise SystemExit(2) from None
    from probkit.cli import doctor, listing, runs
    from probkit.errors import ProbkitError

    app = typer.Typer(
        help="Structured, calibrated Bayesian models.",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
    )
    for name, module in family_modules():
        app.add_typer(module.app, name=name)
    app.command("list")(listing.show)
    app.command("report")(runs.report)
    app.command("doctor")(doctor.doctor)
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    try:
        app(args=arguments)
    except ProbkitError as error:
        if "--debug" in sys.argv:
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
