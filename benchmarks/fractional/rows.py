"""All rows of the fractional family; importing this module registers them."""

from benchmarks.fractional import process, volatility

__all__ = ["process", "volatility"]
