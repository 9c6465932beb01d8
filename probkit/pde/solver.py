"""``GPSolver``: solve a PDE by a Gaussian process whose spectrum is read off the source."""

from __future__ import annotations

from dataclasses import dataclass

from probkit.errors import ConfigurationError, message
from probkit.infer import FitResult
from probkit.pde.dense_route import solve_dense
from probkit.pde.diagnostics import warn
from probkit.pde.grid_system import separable
from probkit.pde.map_route import can_map, solve_map
from probkit.pde.problem import Box, Mask, Points, Problem
from probkit.pde.rows_route import solve_rows
from probkit.pde.separable_route import solve_separable
from probkit.pde.settings import SolverSettings
from probkit.pde.solution import PDESolution
from probkit.pde.uniqueness import check_resonance
from probkit.pde.validation import check_problem
from probkit.random import Seed

__all__ = ["GPSolver"]

_ROUTES = {
    "dense": solve_dense,
    "separable": solve_separable,
    "rows": solve_rows,
    "map": solve_map,
}


@dataclass(frozen=True)
class GPSolver(SolverSettings):
    """Solve a linear or semilinear PDE by Gaussian-process collocation in harmonic features.

    Frequencies, band limit and prior weights are chosen from the source; nothing is set by hand.
    Fang et al., ICLR 2024, arXiv 2311.04465. Clean data on a plain box with more than about pi
    points a wavelength need no Gaussian process: a Chebyshev solver is as accurate and faster.

    Args:
        method: how: "dense" (all rows formed; one dimension, scattered points), "separable" (a
            constant-coefficient elliptic equation on a box, by fast diagonalisation), "rows" (least
            squares over products of functions; any equation on a grid, a mask or with noise),
            "map" (the paper's: grid values and spectra together by Adam; a point estimate on a box,
            kept for comparison), or "auto", which never takes the last.
        extension: period of the features over the length of a side.
        num_sweeps: evidence updates of the prior weights; 0 keeps the first ones.
        max_newton: limit on Newton steps.
        max_features: limit on the features of scattered points in two or more dimensions.
        max_products: limit on the unknowns of "rows".
        max_epochs: limit on the epochs of "map".
        max_seconds: CPU seconds after which "map" stops; None for any.
        band_limit: highest frequency (cycles per unit); None to choose it from the source.
        prior: a kernel with a known spectral density; None to learn the spectrum. For "map" the
            ``SpectralMixtureKernel`` to start from, copied for every side; what of it does not
            require gradients stays fixed.

    Raises:
        ConfigurationError: a setting out of its range.

    Example:
        >>> import math
        >>> import torch
        >>> from probkit.pde import PDE, Box, Condition, Problem, Term
        >>> ends = [Condition.dirichlet((0, 0)), Condition.dirichlet((0, 1))]
        >>> problem = Problem(
        ...     PDE([Term(1.0, (2,))]), Box([(0.0, math.pi)], 60), ends, lambda x: -torch.sin(x)
        ... )
        >>> solution = GPSolver().fit(problem)
        >>> abs(float(solution.mean(torch.tensor([1.0]))[0]) - math.sin(1.0)) < 1e-10
        True
    """

    def fit(self, problem: Problem, *, seed: Seed = 0, progress: bool = False) -> PDESolution:
        """Solve.

        Args:
            problem: equation, domain, conditions, source and data.
            seed: of the random sketches on grids; "dense" draws no random numbers.
            progress: show a progress bar.

        Raises:
            ConfigurationError, DataError, ShapeError, DtypeError: at the door.
            UnsolvableError: the equation and its conditions cannot be met, or, on a line or for
                constant coefficients on a box (Robin conditions excepted), leave a function free.
            NumericalError: a solve that broke down.

        Warns:
            FitWarning: the grid is too coarse, or conditions contradict one another.
        """
        check_problem(problem)
        check_resonance(problem)
        method, reason = self._choose(problem)
        result: FitResult = _ROUTES[method](self, problem, reason, seed, progress)
        result.diagnostics["method"] = method
        warn(result)
        return PDESolution(result)

    solve = fit

    def _choose(self, problem: Problem) -> tuple[str, str]:
        """The route and why."""
        method, domain = self.method, problem.domain
        grid = isinstance(domain, Box | Mask)
        possible = {
            "dense": not isinstance(domain, Mask),
            "separable": isinstance(domain, Box) and problem.pde.dim > 1 and separable(problem),
            "rows": grid and problem.pde.dim > 1,
            "map": can_map(problem),
        }
        if method != "auto":
            if not possible[method]:
                raise ConfigurationError(
                    message(
                        "This method does not fit the problem",
                        where="method",
                        got=method,
                        expected=f"one of {[m for m, ok in possible.items() if ok]}",
                    )
                )
            return method, "asked for"
        if possible["separable"]:
            return "separable", "constant coefficients on a box, exact data"
        if possible["rows"]:
            return "rows", "a grid in two or more dimensions"
        scattered = isinstance(domain, Points) and problem.pde.dim > 1
        return "dense", "scattered points" if scattered else "one dimension"
