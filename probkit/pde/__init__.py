"""Gaussian-process PDE solver for high-frequency and multi-scale problems, with error bars."""

from __future__ import annotations

from probkit.pde.cases import CASES, Case
from probkit.pde.errors import UnsolvableError
from probkit.pde.grid_posterior import GridPosterior
from probkit.pde.inverse import InverseSolver
from probkit.pde.inverse_solution import InversePosterior, InverseSolution
from probkit.pde.posterior import HarmonicPosterior
from probkit.pde.problem import PDE, Box, Condition, Mask, Points, Problem, Term, Unknown
from probkit.pde.solution import PDESolution
from probkit.pde.solver import GPSolver

__all__ = [
    "CASES",
    "PDE",
    "Box",
    "Case",
    "Condition",
    "GPSolver",
    "GridPosterior",
    "HarmonicPosterior",
    "InversePosterior",
    "InverseSolution",
    "InverseSolver",
    "Mask",
    "PDESolution",
    "Points",
    "Problem",
    "Term",
    "Unknown",
    "UnsolvableError",
]
