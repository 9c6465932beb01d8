"""All rows of the sparse family; importing this module registers them."""

from benchmarks.sparse import accuracy, channel, exact, offgrid, scale, sweeps

__all__ = ["accuracy", "channel", "exact", "offgrid", "scale", "sweeps"]
