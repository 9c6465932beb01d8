"""All rows of the compositions; importing this module registers them."""

from benchmarks.compositions import counts, gains, memory, releases, spectrum, surrogate

__all__ = ["counts", "gains", "memory", "releases", "spectrum", "surrogate"]
