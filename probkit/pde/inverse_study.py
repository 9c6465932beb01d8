"""A whole study of an inverse problem: find what is unknown, judge it, report and draw."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from probkit.pde.inverse import InverseSolver
from probkit.pde.inverse_solution import InverseSolution
from probkit.pde.problem import Problem
from probkit.pde.study import require_empty
from probkit.plot import plot_history
from probkit.report import write_report

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
    """

    problem: Problem
    out: Path
    title: str
    truth: Mapping[str, float] = field(default_factory=dict)
    exact: Callable[[Tensor], Tensor] | None = None
    solver: InverseSolver = field(default_factory=InverseSolver)
    seed: int = 0

    def run(self) -> Iterator[str]:
        """Find the unknowns; yields the lines that a user should see.

        Raises:
            ConfigurationError: the directory holds files already.
        """
        require_empty(self.out)
        yield repr(self.problem.pde)
        solution = self.solver.fit(self.problem, seed=self.seed)
        solution.save(self.out)
        status = solution.status
        yield f"{status.value}: {status.message} {status.remedy}".rstrip()
        found = solution.coefficients()
        for name, moments in found.items():
            known = f" (true: {self.truth[name]:g})" if name in self.truth else ""
            yield (
                f"{name} = {moments['mean']:.5g} +- {moments['sd']:.2g}, 95 % interval "
                f"[{moments['low']:.5g}, {moments['high']:.5g}]{known}"
            )
        record: dict[str, Any] = {
            "title": self.title,
            "data": {"equation": repr(self.problem.pde)},
            "status": {
                "name": status.value,
                "message": status.message,
                "remedy": status.remedy,
                "detail": solution.result.detail,
            },
            "diagnostics": solution.diagnostics,
            "scores": {"unknowns": self._scores(found)},
            "figures": self._draw(solution),
        }
        if self.exact is not None:
            error = self._error(solution, self.exact)
            record["scores"]["solution"] = {"probkit": {"relative_error": error}}
            yield f"relative error of u: {error:.1e}"
        yield f"report: {write_report(self.out, record)}"

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

    def _draw(self, solution: InverseSolution) -> dict[str, str]:
        folder, found = self.out / "figures", {}
        if self.problem.pde.dim < 3:
            found["Solution"] = solution.plot(folder / "solution.png")
        history = solution.result.history
        if len(torch.as_tensor(history["objective"])) > 1:
            found["Objective by step"] = plot_history(history, folder / "history.png")
        return {caption: str(path.relative_to(self.out)) for caption, path in found.items()}
