"""Engines, the one loop and the one result."""

from __future__ import annotations

from probkit.infer.cavi import CAVI, CVI
from probkit.infer.fitting import fit
from probkit.infer.gibbs import Gibbs
from probkit.infer.hmc import HMC
from probkit.infer.nuts import NUTS
from probkit.infer.posterior import DrawsPosterior
from probkit.infer.protocols import GibbsModel, PosteriorLike, StepInfo, Sweep
from probkit.infer.result import FitResult
from probkit.infer.seeding import param_scope, pyro_seed
from probkit.infer.status import Status
from probkit.infer.svi import SVI

__all__ = [
    "CAVI",
    "CVI",
    "HMC",
    "NUTS",
    "SVI",
    "DrawsPosterior",
    "FitResult",
    "Gibbs",
    "GibbsModel",
    "PosteriorLike",
    "Status",
    "StepInfo",
    "Sweep",
    "fit",
    "param_scope",
    "pyro_seed",
]
