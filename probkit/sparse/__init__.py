"""Kronecker-structured sparse Bayesian learning."""

from __future__ import annotations

from probkit.linalg.nearest_kronecker import nearest_kronecker
from probkit.sparse.baselines import kronecker_omp, omp, oracle_least_squares
from probkit.sparse.estimator import METHODS, KroneckerSBL, Recovery
from probkit.sparse.grids import GridDictionary
from probkit.sparse.irs import IRSChannel, simulate_irs, steering
from probkit.sparse.metrics import nmse, support_recovery, symbol_error_rate
from probkit.sparse.model import CoefficientDraws, draw_coefficients, kronecker_sparse_model
from probkit.sparse.posterior import SparsePosterior
from probkit.sparse.simulate import RecoveryProblem, simulate_recovery

__all__ = [
    "METHODS",
    "CoefficientDraws",
    "GridDictionary",
    "IRSChannel",
    "KroneckerSBL",
    "Recovery",
    "RecoveryProblem",
    "SparsePosterior",
    "draw_coefficients",
    "kronecker_omp",
    "kronecker_sparse_model",
    "nearest_kronecker",
    "nmse",
    "omp",
    "oracle_least_squares",
    "simulate_irs",
    "simulate_recovery",
    "steering",
    "support_recovery",
    "symbol_error_rate",
]
