"""P22: the defaults against the paper's own scheme, epoch by epoch, in the same process."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.baselines.adam_collocation import (
    AdamCollocationBaseline,
    AdamCollocationBaseline2D,
)
from benchmarks.frame import Context, Line, cpu_seconds, row
from benchmarks.pde.lines import solve
from probkit.pde import CASES, Case

_LINE_EPOCHS, _SQUARE_EPOCHS = 100, 30
_SQUARES = {
    "product": ("poisson2d_sin100", 20.0),
    "sum": ("poisson2d_sum", 20.0),
    "mix": ("allen_cahn2d_mix", 30.0),
}
"""case and highest frequency of the start, which the authors set for each problem"""


@row("P22", "the paper's scheme, Student-t mixture: error and time of its epochs")
def paper_scheme(context: Context) -> Iterator[Line]:
    case = CASES["poisson_sin100"]
    problem = case.problem()
    ((low, high),) = problem.domain.bounds
    at = torch.linspace(low, high, 300, dtype=torch.float64)
    exact, ends = case.solution(at), case.solution(at[[0, -1]])
    start = cpu_seconds()
    scheme = AdamCollocationBaseline(
        problem.source, (float(ends[0]), float(ends[1])), high, case.num, 20.0
    )
    scheme.run(_LINE_EPOCHS)
    theirs = cpu_seconds() - start
    error = float((scheme.predict(at) - exact).norm() / exact.norm())
    yield Line("authors_error", f"sin 100x: error after {_LINE_EPOCHS} epochs", error)
    _, ours = solve(problem)
    yield Line("line_time", f"sin 100x: CPU s, ours and {_LINE_EPOCHS} epochs", ours, theirs)
    for key, (name, top) in _SQUARES.items():
        theirs, error = _square(CASES[name], top, cubic=name.startswith("allen"))
        _, ours = solve(CASES[name].problem())
        label = f"{name}: CPU s, ours and {_SQUARE_EPOCHS} epochs (their error {error:.2f})"
        yield Line(f"{key}_time", label, ours, theirs)


def _square(case: Case, top: float, *, cubic: bool) -> tuple[float, float]:
    """CPU seconds and error of the scheme on a square."""
    problem = case.problem()
    low, high = problem.domain.bounds[0]

    start = cpu_seconds()
    scheme = AdamCollocationBaseline2D(
        problem.source, case.solution, high, case.num, top, cubic=cubic
    )
    scheme.run(_SQUARE_EPOCHS)
    spent = cpu_seconds() - start
    at = torch.linspace(low, high, 300, dtype=torch.float64)
    exact = case.solution(torch.cartesian_prod(at, at)).reshape(300, 300)
    return spent, float((scheme.predict(at) - exact).norm() / exact.norm())
