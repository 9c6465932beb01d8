"""All rows of the compositions; importing this module registers them."""

from benchmarks.compositions import counts, gains, memory, spectrum

__all__ = ["counts", "gains", "memory", "spectrum"]
