"""All rows of private similarity; importing this module registers them."""

from benchmarks.similarity import distances, kernels, noise, privacy, scale

__all__ = ["distances", "kernels", "noise", "privacy", "scale"]
