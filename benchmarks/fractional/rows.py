"""All rows of the fractional family; importing this module registers them."""

from benchmarks.fractional import (
    drift,
    encoder,
    filtering,
    hurst,
    paths,
    process,
    sampling,
    video,
    volatility,
)

__all__ = [
    "drift",
    "encoder",
    "filtering",
    "hurst",
    "paths",
    "process",
    "sampling",
    "video",
    "volatility",
]
