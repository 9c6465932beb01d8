"""All rows of the fractional family; importing this module registers them."""

from benchmarks.fractional import (
    encoder,
    filtering,
    hurst,
    paths,
    process,
    sampling,
    volatility,
)

__all__ = ["encoder", "filtering", "hurst", "paths", "process", "sampling", "volatility"]
