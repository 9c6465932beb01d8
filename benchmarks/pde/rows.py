"""All rows of the PDE family; importing this module registers them."""

from benchmarks.pde import domains, evolution, grids, kernels, lines, noise

__all__ = ["domains", "evolution", "grids", "kernels", "lines", "noise"]
