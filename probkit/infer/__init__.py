"""Engines, the one loop and the one result."""

from __future__ import annotations

from probkit.infer.calibration import Calibration
from probkit.infer.cavi import CAVI, CVI
from probkit.infer.data_parallel import DataParallelSVI
from probkit.infer.densities import SmoothDensity
from probkit.infer.em import EM, ExpectationMaximization
from probkit.infer.fitting import fit
from probkit.infer.gauss_newton import GaussNewton, LeastSquares, Linearization
from probkit.infer.gibbs import Gibbs
from probkit.infer.hmc import HMC
from probkit.infer.importance import WeightedDraws
from probkit.infer.laplace import Laplace
from probkit.infer.maximum import MAP
from probkit.infer.nuts import NUTS
from probkit.infer.point_estimate import PointEstimate
from probkit.infer.posterior import DrawsPosterior
from probkit.infer.protocols import EngineLike, GibbsModel, PosteriorLike, StepInfo, Sweep
from probkit.infer.pyro_data import Batches
from probkit.infer.ranks import Ranks, process_group
from probkit.infer.result import FitResult
from probkit.infer.seeding import param_scope, pyro_seed
from probkit.infer.simulation_calibration import calibrate
from probkit.infer.status import Status
from probkit.infer.svi import SVI
from probkit.infer.sweeps import Outcome, fit_many, grid

__all__ = [
    "CAVI",
    "CVI",
    "EM",
    "HMC",
    "MAP",
    "NUTS",
    "SVI",
    "Batches",
    "Calibration",
    "DataParallelSVI",
    "DrawsPosterior",
    "EngineLike",
    "ExpectationMaximization",
    "FitResult",
    "GaussNewton",
    "Gibbs",
    "GibbsModel",
    "Laplace",
    "LeastSquares",
    "Linearization",
    "Outcome",
    "PointEstimate",
    "PosteriorLike",
    "Ranks",
    "SmoothDensity",
    "Status",
    "StepInfo",
    "Sweep",
    "WeightedDraws",
    "calibrate",
    "fit",
    "fit_many",
    "grid",
    "param_scope",
    "process_group",
    "pyro_seed",
]
