"""All rows of private similarity; importing this module registers them."""

from benchmarks.similarity import distances

__all__ = ["distances"]
