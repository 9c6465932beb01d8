"""A whole study of an inverse problem: find what is unknown, judge it, report and draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from probkit.pde.inverse import InverseSolver
from probkit.pde.inverse_solution import InverseSolution
from probkit.pde.problem import Problem
from probkit.pde.study import draw
from probkit.study import (
    Lines,
    check_directory,
    close_study,
    ending,
    fit_sections,
    relative_figures,
)

__all__ = ["InverseStudy"]


@dataclass(frozen=True)
class InverseStudy:
    """Find the unknowns of a problem and write everything to a directory.

    Args:
        problem: with unknowns.
        out: an empty or new directory.
        title: of the report.
        truth: of unknowns, where it is known.
        exact: the solution, where it is known.
        solver: with its engine and settings.
        seed: of the solver.
        progress: show the engine's progress bar.
    """

    problem: Problem
    out: Path
    title: str
    truth: Mapping[str, float] = field(default_factory=dict)
    exact: Callable[[Tensor], Tensor] | None = None
    solver: InverseSolver = field(default_factory=InverseSolver)
    seed: int = 0
    progress: bool = False

    def run(self) -> Lines:
        """Find the unknowns; yields the lines that a user should see, returns the record.

        Raises:
            ConfigurationError: the directory holds files already.
        """
        check_directory(self.out)
        yield repr(self.problem.pde)
        solution = self.solver.fit(self.problem, seed=self.seed, progress=self.progress)
        solution.save(self.out)
        yield ending(solution.result)
        found = solution.coefficients()
        for name, moments in found.items():
            known = f" (true: {self.truth[name]:g})" if name in self.truth else ""
            yield (
                f"{name} = {moments['mean']:.5g} +- {moments['sd']:.2g}, 95 % interval "
                f"[{moments['low']:.5g}, {moments['high']:.5g}]{known}"
            )
        record: dict[str, Any] = {
            "title": self.title,
            "study": {"family": "pde", "command": "solve"},
            "data": {"equation": repr(self.problem.pde)},
            **fit_sections(solution.result),
            "scores": {"unknowns": self._scores(found)},
        }
        if self.exact is not None:
            error = self._error(solution, self.exact)
            record["scores"]["solution"] = {"probkit": {"relative_error": error}}
            yield f"relative error of u: {error:.1e}"
        record["figures"] = relative_figures(draw(solution, self.out / "figures"), self.out)
        return (yield from close_study(self.out, record))

    def _scores(self, found: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
        scores = {}
        for name, moments in found.items():
            scores[name] = dict(moments)
            if name in self.truth:
                gap = abs(moments["mean"] - self.truth[name])
                scores[name] |= {"error": gap, "errors_in_sd": gap / moments["sd"]}
        return scores

    def _error(self, solution: InverseSolution, exact: Callable[[Tensor], Tensor]) -> float:
        points = self.problem.domain.points()
        truth = exact(points[:, 0] if points.shape[1] == 1 else points)
        return float((solution.mean(points) - truth).norm() / truth.norm())
