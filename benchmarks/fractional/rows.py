"""All rows of the fractional family; importing this module registers them."""

from benchmarks.fractional import (
    bad_input,
    drift,
    encoder,
    filtering,
    hurst,
    multifractal,
    paths,
    process,
    sampling,
    video,
    volatility,
)

__all__ = [
    "bad_input",
    "drift",
    "encoder",
    "filtering",
    "hurst",
    "multifractal",
    "paths",
    "process",
    "sampling",
    "video",
    "volatility",
]
