"""All rows of the compositions; importing this module registers them."""

from benchmarks.compositions import counts, gains, memory, spectrum, surrogate

__all__ = ["counts", "gains", "memory", "spectrum", "surrogate"]
