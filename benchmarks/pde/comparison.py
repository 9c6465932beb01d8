"""Every case of the paper by every method, errors and times in one table.

    python -m benchmarks.pde.comparison --seconds 12 --markdown docs/explanation/pde-comparison.md

The methods that iterate (the paper's and its relatives through ``method="map"``, the networks) have
the same budget of CPU seconds a case, and their last iterate is reported, never the best of several
checkpoints by the true error. Those that need the highest frequency of the solution are told it:
the figure that the authors set for each case. Errors are relative, on 300 points a side.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.baselines.classical import solve_classical
from benchmarks.baselines.pinn import PinnBaseline
from benchmarks.frame import cpu_seconds, machine
from probkit.errors import FitWarning
from probkit.kernels import SpectralMixtureKernel
from probkit.kernels.constraints import real_line
from probkit.pde import CASES, Case, GPSolver

__all__ = ["METHODS", "TOP_FREQUENCIES", "Cell", "compare"]

_BUDGET, _COMPONENTS, _POINTS = 12.0, 30, 300
TOP_FREQUENCIES = {
    "poisson_sin100": 20.0,
    "poisson_mix": 30.0,
    "poisson_sin6cos100": 20.0,
    "poisson_xsin200": 50.0,
    "poisson_sin500": 100.0,
    "allen_cahn_sin100": 20.0,
    "allen_cahn_sin6cos100": 20.0,
    "poisson2d_sin100": 20.0,
    "poisson2d_sum": 20.0,
    "allen_cahn2d_mix": 30.0,
    "advection_sin200": 40.0,
}
_Solved = tuple[Tensor, int | None]
"""u on the grid of evaluation, and the number of steps or epochs"""


class Cell(NamedTuple):
    """One method on one case: relative error, CPU seconds, steps or epochs."""

    method: str
    error: float
    seconds: float
    steps: int | None


def compare(name: str, budget: float) -> Iterator[Cell]:
    """Errors, CPU seconds and steps of all methods on a case."""
    case = CASES[name]
    bounds = case.problem(8).domain.bounds
    axes = [torch.linspace(low, high, _POINTS, dtype=torch.float64) for low, high in bounds]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))
    truth = case.solution(axes[0] if len(axes) == 1 else grid)
    for method, solve in METHODS.items():
        start = cpu_seconds()
        found, steps = solve(case, axes, TOP_FREQUENCIES[name], budget)
        seconds = cpu_seconds() - start
        error = float((found.reshape(-1) - truth).norm() / truth.norm())
        yield Cell(method, error, seconds, steps)


def _ours(case: Case, axes: list[Tensor], top: float, budget: float) -> _Solved:
    return GPSolver().fit(case.problem()).on_grid(axes), None


def _joint(kind: str, *, waves: bool) -> Callable[[Case, list[Tensor], float, float], _Solved]:
    """The paper's scheme with a mixture, or with its cosines left out."""

    def solve(case: Case, axes: list[Tensor], top: float, budget: float) -> _Solved:
        kernel = SpectralMixtureKernel(_COMPONENTS, kind=kind, frequency_constraint=real_line())
        kernel.frequencies = torch.linspace(0, top if waves else 0, _COMPONENTS)
        if kind == "gaussian":
            kernel.lengthscales = torch.full((_COMPONENTS,), 0.5**0.5)
        kernel.raw_frequencies.requires_grad_(waves)
        solver = GPSolver(method="map", prior=kernel, max_epochs=10**6, max_seconds=budget)
        with warnings.catch_warnings():  # that it has not settled is what the table shows
            warnings.simplefilter("ignore", FitWarning)
            solution = solver.fit(case.problem())
        return solution.on_grid(axes), int(solution.diagnostics["epochs"])

    return solve


def _network(*, features: bool) -> Callable[[Case, list[Tensor], float, float], _Solved]:
    def solve(case: Case, axes: list[Tensor], top: float, budget: float) -> _Solved:
        network = PinnBaseline(case.problem(), top if features else None)
        steps = network.run(budget)
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))
        return network.predict(grid), steps

    return solve


def _classical(method: str) -> Callable[[Case, list[Tensor], float, float], _Solved]:
    def solve(case: Case, axes: list[Tensor], top: float, budget: float) -> _Solved:
        at: list[np.ndarray] = [axis.numpy() for axis in axes]
        return torch.from_numpy(solve_classical(case.problem(), at, method)), None

    return solve


METHODS: dict[str, Callable[[Case, list[Tensor], float, float], _Solved]] = {
    "probkit": _ours,
    "Chebyshev": _classical("chebyshev"),
    "differences": _classical("differences"),
    "GP-HM-StM": _joint("student", waves=True),
    "GP-HM-GM": _joint("gaussian", waves=True),
    "GP-SE": _joint("gaussian", waves=False),
    "GP-Matérn": _joint("student", waves=False),
    "PINN": _network(features=False),
    "RFF-PINN": _network(features=True),
}


def _markdown(cells: dict[str, list[Cell]], budget: float, where: str) -> str:
    """The page with the table."""
    lines = [
        "# The paper's cases by all methods",
        "",
        "Relative error on 300 points a side, with CPU seconds and, for methods that iterate,",
        f"their number of steps in brackets. Those methods had {budget:g} CPU seconds a case; the",
        "last iterate is reported. The authors let theirs run for 1e5 to 3e6 epochs. GP-HM-StM and",
        '-GM are the paper\'s method (`GPSolver(method="map")`), GP-SE and GP-Matérn the same',
        "without cosines. Mixtures and RFF-PINN are told the highest frequency that the authors",
        "set for each case. `probkit` is `GPSolver()` with its defaults, the same for all.",
        "",
        "Seconds beyond the budget are the diagnosis and evaluation of the last iterate. So short",
        "a budget does not tell how far the iterations would come in days. On these clean",
        "intervals and squares, with more than three points a wavelength, Chebyshev collocation",
        "is the cheapest choice: see {doc}`../tutorials/06_classical_solver_instead`.",
        "",
        f"Generated by `python -m benchmarks.pde.comparison --seconds {budget:g}` on {where}.",
        "",
        "| case | " + " | ".join(METHODS) + " |",
        "| --- |" + " --- |" * len(METHODS),
    ]
    for name, row_ in cells.items():
        found = []
        for cell in row_:
            steps = "" if cell.steps is None else f", {cell.steps}"
            found.append(f"{cell.error:.0e} ({cell.seconds:.2g} s{steps})")
        lines.append(f"| `{name}` | " + " | ".join(found) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=_BUDGET, help="budget a case and method")
    parser.add_argument(
        "--cases", default=",".join(TOP_FREQUENCIES), help="names, separated by commas"
    )
    parser.add_argument("--json", type=Path, help="cells found so far; read and added to")
    parser.add_argument("--markdown", type=Path, help="write the page of the table here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = options.json is not None and options.json.exists()
    saved = json.loads(options.json.read_text(encoding="utf-8")) if known else {}
    cells = {name: [Cell(*cell) for cell in row] for name, row in saved.items()}
    for name in options.cases.split(","):
        if name not in cells:
            cells[name] = list(compare(name, options.seconds))
            print(name, *(f"{c.method} {c.error:.1e}" for c in cells[name]), flush=True)
            if options.json is not None:
                options.json.write_text(json.dumps(cells, indent=1) + "\n", encoding="utf-8")
    if options.markdown is not None:
        ordered = {name: cells[name] for name in TOP_FREQUENCIES if name in cells}
        page = _markdown(ordered, options.seconds, machine())
        options.markdown.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
