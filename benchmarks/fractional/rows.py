"""All rows of the fractional family; importing this module registers them."""

from benchmarks.fractional import filtering, paths, process, video, volatility

__all__ = ["filtering", "paths", "process", "video", "volatility"]
