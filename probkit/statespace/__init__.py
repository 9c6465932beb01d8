"""Markov Gaussian processes: discretisation, smoothing, sampling, interpolation."""
