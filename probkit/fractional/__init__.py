"""Processes driven by fractional Brownian motion: how rough a series is, and what follows."""

from __future__ import annotations

from probkit.fractional.control import ControlGuide, ControlPaths
from probkit.fractional.encoder import HurstEncoder
from probkit.fractional.guide import GuidePaths, MarkovGaussianGuide
from probkit.fractional.hurst import HurstModel
from probkit.fractional.learning import PathMarginal
from probkit.fractional.model import hurst_model, series_log_likelihood
from probkit.fractional.neural_drift import NeuralDrift
from probkit.fractional.sde import FractionalSDE, SDEPath
from probkit.fractional.series import Series, prepare_series
from probkit.fractional.time_varying import TimeVaryingHurst
from probkit.fractional.video import LatentVideoModel
from probkit.fractional.video_data import MovingDigits, moving_digits
from probkit.fractional.video_dynamics import LatentDynamics
from probkit.statespace.fractional import MarkovApproxFBM
from probkit.statespace.multifractal import MultifractionalBM

__all__ = [
    "ControlGuide",
    "ControlPaths",
    "FractionalSDE",
    "GuidePaths",
    "HurstEncoder",
    "HurstModel",
    "LatentDynamics",
    "LatentVideoModel",
    "MarkovApproxFBM",
    "MarkovGaussianGuide",
    "MovingDigits",
    "MultifractionalBM",
    "NeuralDrift",
    "PathMarginal",
    "SDEPath",
    "Series",
    "TimeVaryingHurst",
    "hurst_model",
    "moving_digits",
    "prepare_series",
    "series_log_likelihood",
]
