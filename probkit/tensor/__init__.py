"""Functional Bayesian Tucker decomposition: tensors with continuous indexes."""

from __future__ import annotations

from probkit.tensor.estimator import FunctionalTucker
from probkit.tensor.posterior import TuckerPosterior

__all__ = ["FunctionalTucker", "TuckerPosterior"]
