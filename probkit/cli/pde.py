"""``probkit pde solve`` and ``probkit pde cases``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(help="Gaussian-process PDE solver with error bars.", no_args_is_help=True)


@app.command()
def solve(
    problem: Annotated[
        str, typer.Argument(help="A case of the paper by name, or FILE.py:VARIABLE.")
    ],
    out: Annotated[Path, typer.Option(help="Directory for the result.")],
    num: Annotated[
        int | None, typer.Option(help="Points a side of a named case; default the paper's.")
    ] = None,
    method: Annotated[str, typer.Option(help="auto, dense, separable, rows or map.")] = "auto",
    epochs: Annotated[int, typer.Option(help="Limit on the epochs of map.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Of the random sketches on grids.")] = 0,
    smoke: Annotated[bool, typer.Option("--smoke", help="A named case on a small grid.")] = False,
) -> None:
    """Solve a problem, or find its unknowns; write result, report and figures to OUT.

    A file of your own runs as Python: name only files that you trust.
    """
    from probkit.pde import GPSolver
    from probkit.pde.inverse_study import InverseStudy
    from probkit.pde.study import Study, load_problem

    found, exact = load_problem(problem, 60 if smoke and num is None else num)
    study: Study | InverseStudy
    if found.unknowns():
        study = InverseStudy(found, out, problem, exact=exact, seed=seed)
    else:
        solver = GPSolver(method=method, max_epochs=epochs)
        study = Study(found, out, problem, exact, solver, seed)
    for line in study.run():
        typer.echo(line)


@app.command()
def cases() -> None:
    """List the paper's cases."""
    from probkit.pde import CASES

    for name, case in CASES.items():
        typer.echo(f"{name:26s} {case.num} points a side, {case.problem().pde!r}")
