"""Pyro distributions over the structures below."""

from probkit.distributions.centered import Centered
from probkit.distributions.complex_normal import ComplexNormal
from probkit.distributions.kronecker_posterior import KroneckerPosterior
from probkit.distributions.kronecker_sparse import KroneckerSparseNormal
from probkit.distributions.markov_gp import MarkovGaussianProcess

__all__ = [
    "Centered",
    "ComplexNormal",
    "KroneckerPosterior",
    "KroneckerSparseNormal",
    "MarkovGaussianProcess",
]
