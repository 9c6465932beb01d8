"""Functional Bayesian Tucker decomposition: tensors with continuous indexes."""

from __future__ import annotations

from probkit.tensor.estimator import FunctionalTucker
from probkit.tensor.guide import MarkovGuide
from probkit.tensor.model import functional_tucker_model, tucker_function
from probkit.tensor.posterior import TuckerPosterior
from probkit.tensor.simulate import SimulatedTensor, simulate_functional_tucker

__all__ = [
    "FunctionalTucker",
    "MarkovGuide",
    "SimulatedTensor",
    "TuckerPosterior",
    "functional_tucker_model",
    "simulate_functional_tucker",
    "tucker_function",
]
