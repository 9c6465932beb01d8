"""All rows of the PDE family; importing this module registers them."""

from benchmarks.pde import grids, lines

__all__ = ["grids", "lines"]
