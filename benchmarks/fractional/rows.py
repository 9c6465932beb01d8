"""All rows of the fractional family; importing this module registers them."""

from benchmarks.fractional import drift, filtering, paths, process, video, volatility

__all__ = ["drift", "filtering", "paths", "process", "video", "volatility"]
