"""Solvers for stochastic differential equations driven by Markov-approximate fractional noise."""
