"""All rows of the product: importing this module registers them."""

from benchmarks.product import fuzzing, long_run, packaging

__all__ = ["fuzzing", "long_run", "packaging"]
