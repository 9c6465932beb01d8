"""Pyro distributions over the structures below."""

from probkit.distributions.markov_gp import MarkovGaussianProcess

__all__ = ["MarkovGaussianProcess"]
