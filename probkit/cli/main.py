"""The ``probkit`` command: one sub-command a family, plus ``list`` and ``doctor``.

Nothing heavy is imported before a command runs, so ``probkit --help`` is quick.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Entry point. Errors that probkit raises on purpose end with exit code 2 and no traceback."""
    try:
        import typer
    except ImportError:
        print('The command line needs typer: pip install "probkit[cli]"', file=sys.stderr)
        raise SystemExit(2) from None
    from probkit.cli import similarity, tensor
    from probkit.cli.info import datasets, doctor
    from probkit.errors import ProbkitError

    app = typer.Typer(
        help="Structured, calibrated Bayesian models.",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
    )
    app.add_typer(tensor.app, name="tensor")
    app.add_typer(similarity.app, name="similarity")
    app.command("list", help="Data sets that can be named instead of a file.")(datasets)
    app.command("doctor", help="Versions, threads and devices that results depend on.")(doctor)
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    try:
        app(args=arguments)
    except ProbkitError as error:
        if "--debug" in sys.argv:
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
