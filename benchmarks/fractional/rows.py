"""All rows of the fractional family; importing this module registers them."""

from benchmarks.fractional import filtering, hurst, paths, process, sampling, volatility

__all__ = ["filtering", "hurst", "paths", "process", "sampling", "volatility"]
