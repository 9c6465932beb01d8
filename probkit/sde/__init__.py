"""Solvers for stochastic differential equations driven by Markov-approximate fractional noise."""

from __future__ import annotations

from probkit.sde.solve import solve_sde

__all__ = ["solve_sde"]
