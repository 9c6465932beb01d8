"""How every command runs: shared flags, text or JSON, errors without tracebacks, exit codes.

A command is a function that returns (or is) a generator: the lines it yields are for a reader, the
value it returns is the result, of JSON's types. With ``--json`` the lines go to stderr and stdout
gets one object::

    {"command": "tensor fit", "exit_code": 0, "error": null, "result": {...}}

``error`` is null or ``{"type", "message"}``. Exit codes are those of :class:`Exit`.
"""

from __future__ import annotations

import inspect
import json
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable, Generator
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

import typer

from probkit.cli.options import SHARED
from probkit.errors import NumericalError, ProbkitError, ProbkitWarning

__all__ = ["Exit", "Lines", "command", "print_object", "report_usage"]

Lines = Generator[str, None, dict[str, Any]]
_CHECKPOINT = "checkpoint"


class Exit(IntEnum):
    """Exit codes of the command."""

    DONE = 0
    RED = 1
    """It ran, and its answer must not be used: a fit ended red, doctor found a fault."""
    BAD_INPUT = 2
    FAULT = 3
    """An error that probkit did not foresee; the traceback is printed."""
    INTERRUPTED = 130


def command(app: typer.Typer, name: str | None = None) -> Callable[[Callable[..., Lines]], Any]:
    """Register a function as a command, with the flags that every command has.

    A parameter ``progress`` of the function is no option: it is True unless ``--quiet`` is given.
    """

    def register(function: Callable[..., Lines]) -> Callable[..., Lines]:
        app.command(name or function.__name__)(_with_flags(function))
        return function

    return register


def print_object(command: str, code: int, result: Any, error: BaseException | str | None) -> None:
    """Print the one JSON object of a command."""
    told = None
    if error is not None:
        kind = "UsageError" if isinstance(error, str) else type(error).__name__
        told = {"type": kind, "message": str(error)}
    found = {"command": command, "exit_code": int(code), "error": told, "result": result}
    print(json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False))


def report_usage(error: Any, arguments: list[str]) -> int:
    """Show a wrong call as text, and as an object if ``--json`` was among its words."""
    error.show()
    code = int(error.exit_code)
    if "--json" in arguments:
        context = getattr(error, "ctx", None)
        name = context.command_path.partition(" ")[2] if context else ""
        print_object(name, code, None, error.format_message())
    return code


def _with_flags(function: Callable[..., Lines]) -> Callable[..., None]:
    """The function as typer sees it: its own options, then the shared ones."""
    hints = get_type_hints(function, include_extras=True)
    own = inspect.signature(function).parameters
    parameters = [p.replace(annotation=hints[n]) for n, p in own.items() if n != "progress"]
    flags = [
        inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=a)
        for n, a in SHARED.items()
    ]

    def run(context: typer.Context, **arguments: Any) -> None:
        as_json, quiet, debug = (bool(arguments.pop(n)) for n in ("as_json", "quiet", "debug"))
        if "progress" in own:
            arguments["progress"] = not quiet
        directory = arguments.get("out") if "resume" in own else None
        call = partial(function, **arguments)
        name = context.command_path.partition(" ")[2]
        raise typer.Exit(_run(call, name, directory, as_json=as_json, quiet=quiet, debug=debug))

    context = inspect.Parameter(
        "context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context
    )
    run.__signature__ = inspect.Signature([context, *parameters, *flags])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in [context, *parameters, *flags]}
    run.__name__, run.__doc__ = function.__name__, function.__doc__
    return run


def _run(
    call: Callable[[], Lines],
    name: str,
    directory: Path | None,
    *,
    as_json: bool,
    quiet: bool,
    debug: bool,
) -> Exit:
    """Run a command and say how it went.

    Args:
        directory: of a run that can be resumed.
    """
    stream = sys.stderr if as_json else sys.stdout
    result: Any = None
    error: BaseException | None = None
    with warnings.catch_warnings():
        warnings.showwarning = partial(_show_warning, warnings.showwarning)
        try:
            lines = call()
            while True:
                line = next(lines)
                if not (as_json and quiet):
                    print(line, file=stream, flush=True)
        except StopIteration as done:
            result = done.value
            code = _code_of(result)
        except KeyboardInterrupt as stop:
            code, error = Exit.INTERRUPTED, stop
        except BrokenPipeError:
            raise  # the reader of stdout has gone: nothing is left to say
        except Exception as caught:
            code, error = _code_of_error(caught), caught
            if debug or code is Exit.FAULT:
                traceback.print_exc()
            text = f"a fault of probkit itself: {caught!r}" if code is Exit.FAULT else str(caught)
            print(f"error: {text}", file=sys.stderr)
    if code is Exit.INTERRUPTED:
        _tell_how_to_resume(directory)
    if as_json:
        print_object(name, code, result, error)
    return code


def _code_of(result: Any) -> Exit:
    """By the verdict on a fit, or what the command itself says as ``verdict``."""
    status = result.get("status") if isinstance(result, dict) else None
    told = status if isinstance(status, dict) else {}
    if told.get("name") == "interrupted":
        return Exit.INTERRUPTED
    return Exit.RED if told.get("verdict") == "red" else Exit.DONE


def _code_of_error(error: Exception) -> Exit:
    if isinstance(error, NumericalError):
        return Exit.RED
    return Exit.BAD_INPUT if isinstance(error, ProbkitError | OSError) else Exit.FAULT


def _tell_how_to_resume(directory: Path | None) -> None:
    """After an interrupt: the same call with ``--resume``, if there is a checkpoint to go on from.

    What counts as input here are the words of this process, which are those to type again.
    """
    print("interrupted", file=sys.stderr)
    if directory is not None and (directory / _CHECKPOINT).exists():
        words = [word for word in sys.argv[1:] if word != "--resume"]
        again = shlex.join(["probkit", *words, "--resume"])
        print(f"what was done is in {directory}; go on with: {again}", file=sys.stderr)


def _show_warning(
    usual: Callable[..., None], text: Warning | str, category: type[Warning], *place: Any
) -> None:
    """A warning of probkit is one line; others are shown as usual."""
    if issubclass(category, ProbkitWarning):
        print(f"warning: {text}", file=sys.stderr)
    else:
        usual(text, category, *place)
