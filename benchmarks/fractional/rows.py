"""All rows of the fractional family; importing this module registers them."""

from benchmarks.fractional import filtering, process, volatility

__all__ = ["filtering", "process", "volatility"]
