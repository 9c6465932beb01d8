"""Functional Bayesian Tucker decomposition: tensors with continuous indexes."""

from __future__ import annotations

from probkit.tensor.estimator import FunctionalTucker
from probkit.tensor.posterior import TuckerPosterior
from probkit.tensor.simulate import SimulatedTensor, simulate_functional_tucker

__all__ = [
    "FunctionalTucker",
    "SimulatedTensor",
    "TuckerPosterior",
    "simulate_functional_tucker",
]
