"""All rows of private similarity; importing this module registers them."""

from benchmarks.similarity import bayes, distances, kernels, noise, privacy, scale

__all__ = ["bayes", "distances", "kernels", "noise", "privacy", "scale"]
