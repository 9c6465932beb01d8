"""All rows of the product: importing this module registers them."""

from benchmarks.product import fuzzing

__all__ = ["fuzzing"]
