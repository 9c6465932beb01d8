"""All rows of the PDE family; importing this module registers them."""

from benchmarks.pde import (
    all_methods,
    authors,
    bad_input,
    domains,
    evolution,
    fresh,
    grids,
    inverse,
    kernels,
    lines,
    noise,
    terrain,
)

__all__ = [
    "all_methods",
    "authors",
    "bad_input",
    "domains",
    "evolution",
    "fresh",
    "grids",
    "inverse",
    "kernels",
    "lines",
    "noise",
    "terrain",
]
