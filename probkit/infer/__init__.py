"""Engines, the one loop and the one result."""

from __future__ import annotations

from probkit.infer.cavi import CAVI, CVI
from probkit.infer.posterior import DrawsPosterior
from probkit.infer.protocols import GibbsModel, PosteriorLike, StepInfo, Sweep
from probkit.infer.result import FitResult
from probkit.infer.status import Status

__all__ = [
    "CAVI",
    "CVI",
    "DrawsPosterior",
    "FitResult",
    "GibbsModel",
    "PosteriorLike",
    "Status",
    "StepInfo",
    "Sweep",
]
