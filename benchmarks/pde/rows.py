"""All rows of the PDE family; importing this module registers them."""

from benchmarks.pde import (
    bad_input,
    domains,
    evolution,
    grids,
    kernels,
    lines,
    noise,
    terrain,
)

__all__ = [
    "bad_input",
    "domains",
    "evolution",
    "grids",
    "kernels",
    "lines",
    "noise",
    "terrain",
]
