"""All rows of the fractional family; importing this module registers them."""

from benchmarks.fractional import bad_input, filtering, paths, process, volatility

__all__ = ["bad_input", "filtering", "paths", "process", "volatility"]
