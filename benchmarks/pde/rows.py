"""All rows of the PDE family; importing this module registers them."""

from benchmarks.pde import (
    authors,
    bad_input,
    domains,
    evolution,
    grids,
    inverse,
    kernels,
    lines,
    noise,
    terrain,
)

__all__ = [
    "authors",
    "bad_input",
    "domains",
    "evolution",
    "grids",
    "inverse",
    "kernels",
    "lines",
    "noise",
    "terrain",
]
