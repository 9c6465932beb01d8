"""Entry point of the ``probkit`` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and end with its exit code, one of :class:`probkit.cli.running.Exit`.

    Args:
        arguments: words after ``probkit``; None for those of this process.
    """
    try:
        import typer
    except ImportError:
        print('The command line needs typer: pip install "probkit[cli]"', file=sys.stderr)
        raise SystemExit(2) from None
    from probkit.cli.application import build
    from probkit.cli.running import Exit, report_usage

    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        # the name is fixed: shells complete "probkit", however it was started
        code = build().main(args=words, prog_name="probkit", standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        code = Exit.INTERRUPTED
    except Exception as error:
        if not hasattr(error, "format_message"):  # what typer raises for a wrong call
            raise
        code = report_usage(error, words)
    raise SystemExit(int(code or 0))
