"""``probkit pde solve`` and ``probkit pde cases``."""

from __future__ import annotations

from typing import Annotated

import typer

from probkit.cli.options import Out, Seed, Smoke
from probkit.cli.running import Lines, command
from probkit.cli.words import complete

__all__ = ["app", "named_problems"]

app = typer.Typer(help="Gaussian-process PDE solver with error bars.", no_args_is_help=True)

_POISSON, _ALLEN_CAHN = "u_xx = f", "u_xx + u^3 - u = f"
# written out, and checked against probkit.pde.CASES by a test: a shell completes them at once
_CASES = {
    **{
        f"{equation}_{name}": (points, text)
        for equation, text in (("poisson", _POISSON), ("allen_cahn", _ALLEN_CAHN))
        for name, points in (
            ("sin100", 400),
            ("mix", 900),
            ("sin6cos100", 400),
            ("xsin200", 900),
            ("sin500", 400),
        )
    },
    "poisson2d_sin100": (400, "u_xx + u_yy = f"),
    "poisson2d_sum": (200, "u_xx + u_yy = f"),
    "allen_cahn2d_mix": (400, "u_xx + u_yy + u^3 - u = f"),
    "advection_sin200": (200, "u_t + 200 u_x = 0"),
}


def named_problems() -> dict[str, str]:
    """A line on each of the named cases: the paper's, and three more of Allen-Cahn."""
    return {n: f"{equation}, {points} points a side" for n, (points, equation) in _CASES.items()}


@command(app)
def solve(
    problem: Annotated[
        str,
        typer.Argument(
            metavar="PROBLEM",
            help="A named case, or FILE.py:VARIABLE.",
            autocompletion=complete(_CASES),
        ),
    ],
    out: Out,
    num: Annotated[
        int | None, typer.Option(help="Points a side of a named case; default its own.", min=4)
    ] = None,
    method: Annotated[str, typer.Option(help="auto, dense, separable, rows or map.")] = "auto",
    epochs: Annotated[int, typer.Option(help="Limit on the epochs of map.", min=1)] = 10_000,
    seed: Seed = 0,
    smoke: Smoke = False,
    *,
    progress: bool,
) -> Lines:
    """Solve a problem, or find its unknowns; write result, report and figures to OUT.

    A file of your own runs as Python: name only files that you trust.
    """
    from probkit.pde import GPSolver
    from probkit.pde.inverse_study import InverseStudy
    from probkit.pde.study import Study, load_problem

    found, exact = load_problem(problem, 60 if smoke and num is None else num)
    if found.unknowns():
        study = InverseStudy(found, out, problem, exact=exact, seed=seed, progress=progress)
        return study.run()
    solver = GPSolver(method=method, max_epochs=epochs)
    return Study(found, out, problem, exact, solver, seed, progress).run()


@command(app)
def cases() -> Lines:
    """List the named cases: the paper's, and three more of Allen-Cahn."""
    found = named_problems()
    for name, text in found.items():
        yield f"{name:20s} {text}"
    return {"cases": found}
