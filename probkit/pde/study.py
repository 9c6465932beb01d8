"""A whole study of one problem: solve, judge against the known solution, report and draw."""

from __future__ import annotations

import importlib.util
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from probkit.errors import DataError, message
from probkit.infer import FitResult
from probkit.pde.cases import CASES
from probkit.pde.inverse_solution import InversePosterior, InverseSolution
from probkit.pde.problem import Problem
from probkit.pde.solution import PDESolution
from probkit.pde.solver import GPSolver
from probkit.plot import plot_curve, plot_history
from probkit.study import (
    Lines,
    check_directory,
    close_study,
    ending,
    fit_sections,
    relative_figures,
)

__all__ = ["Study", "draw", "load_problem", "redraw"]


@dataclass(frozen=True)
class Study:
    """Solve a problem and write everything to a directory.

    Args:
        problem: what to solve.
        out: an empty or new directory.
        title: of the report.
        exact: the solution, where it is known.
        solver: with its settings.
        seed: of the solver.
        progress: show a progress bar where the method iterates.
    """

    problem: Problem
    out: Path
    title: str
    exact: Callable[[Tensor], Tensor] | None = None
    solver: GPSolver = field(default_factory=GPSolver)
    seed: int = 0
    progress: bool = False

    def run(self) -> Lines:
        """Solve; yields the lines that a user should see, returns the record.

        Raises:
            ConfigurationError: the directory holds files already.
        """
        check_directory(self.out)
        yield repr(self.problem.pde)
        solution = self.solver.fit(self.problem, seed=self.seed, progress=self.progress)
        solution.save(self.out)
        yield ending(solution.result)
        norms = solution.residual_norms
        yield f"residuals: equation {norms['equation']:.1e}, conditions {norms['conditions']:.1e}"
        method = solution.diagnostics["method"]
        record: dict[str, Any] = {
            "title": self.title,
            "study": {"family": "pde", "command": "solve"},
            "data": {"equation": repr(self.problem.pde), "method": method},
            **fit_sections(solution.result),
        }
        if self.exact is not None:
            error, rms = self._error(solution)
            scores = {"probkit": {"rmse": rms, "relative_error": error}}
            record["scores"] = {"against the exact solution": scores}
            yield f"relative error: {error:.1e}"
        record["figures"] = relative_figures(draw(solution, self.out / "figures"), self.out)
        return (yield from close_study(self.out, record))

    def _error(self, solution: PDESolution) -> tuple[float, float]:
        assert self.exact is not None
        axes = self._axes(300 if self.problem.pde.dim < 3 else 60)
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))
        truth = self.exact(grid[:, 0] if len(axes) == 1 else grid)
        gap = solution.on_grid(axes).reshape(-1) - truth
        return float(gap.norm() / truth.norm()), float(gap.square().mean().sqrt())

    def _axes(self, num: int) -> list[Tensor]:
        bounds = self.problem.domain.bounds
        return [torch.linspace(low, high, num, dtype=torch.float64) for low, high in bounds]


def draw(solution: PDESolution | InverseSolution, folder: Path) -> dict[str, Path]:
    """The figures of a solution, by caption: u, its prior spectra where it has any, the history."""
    posterior: Any = solution.result.posterior
    found, dim = {}, len(posterior.sides)
    if dim < 3:
        found["Solution"] = solution.plot(folder / "solution.png")
    spectra = solution.spectrum() if isinstance(solution, PDESolution) else []
    for k, (frequency, power) in enumerate(spectra):
        name = "xyz"[k] if dim <= 3 else f"x{k}"
        level = (power / power.max()).clamp(min=1e-30).log10()
        labels = ("frequency, cycles per unit", "log10 power")
        path = folder / f"spectrum_{name}.png"
        found[f"Spectrum along {name}"] = plot_curve(
            frequency, level, torch.zeros_like(level), labels, path
        )
    history = solution.result.history
    if len(history["objective"]) > 1:
        found["Objective by step"] = plot_history(history, folder / "history.png")
    return found


def redraw(directory: Path) -> dict[str, Path]:
    """Draw the figures of a saved solution again; paths by caption.

    Raises:
        CheckpointError: there is no readable solution in the directory.
    """
    result = FitResult.load(directory)
    inverse = isinstance(result.posterior, InversePosterior)
    solution = InverseSolution(result) if inverse else PDESolution(result)
    return draw(solution, directory / "figures")


def load_problem(name: str, num: int | None = None) -> tuple[Problem, Any]:
    """A case by name, or ``file.py:variable``; the problem and its exact solution, if known.

    Raises:
        DataError: no such case, file or variable, it holds something else, or cannot be run.
    """
    if name in CASES:
        return CASES[name].problem(num), CASES[name].solution
    path, _, variable = name.partition(":")
    if not Path(path).is_file():
        raise DataError(
            message(
                "There is no such problem",
                where="PROBLEM",
                got=name,
                expected=f"file.py:variable, or one of {', '.join(CASES)}",
            )
        )
    spec = importlib.util.spec_from_file_location("probkit_user_problem", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # of the user's file: any
        raise DataError(
            message(
                f"The file cannot be run: {type(error).__name__}: {error}",
                where=f"PROBLEM, line {_line_of(error, path)}",
                got=path,
                expected="a Python file that defines a probkit.pde.Problem",
            )
        ) from error
    found = getattr(module, variable or "problem", None)
    if not isinstance(found, Problem):
        raise DataError(
            message(
                "The file does not define the problem",
                where="PROBLEM",
                got=f"{variable or 'problem'} = {found!r}",
                expected="a probkit.pde.Problem",
            )
        )
    return found, getattr(module, "exact", None)


def _line_of(error: Exception, path: str) -> int | None:
    """The line of the file at which an error arose."""
    if isinstance(error, SyntaxError):
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno for f in frames if Path(f.filename).resolve() == Path(path).resolve()]
    return lines[-1] if lines else None
