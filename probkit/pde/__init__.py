"""Gaussian-process PDE solver for high-frequency and multi-scale problems, with error bars."""

from __future__ import annotations

from probkit.pde.cases import CASES, Case
from probkit.pde.posterior import HarmonicPosterior
from probkit.pde.problem import PDE, Box, Condition, Points, Problem, Term
from probkit.pde.solution import PDESolution
from probkit.pde.solver import GPSolver

__all__ = [
    "CASES",
    "PDE",
    "Box",
    "Case",
    "Condition",
    "GPSolver",
    "HarmonicPosterior",
    "PDESolution",
    "Points",
    "Problem",
    "Term",
]
