"""Kronecker-structured sparse Bayesian learning."""
