"""Benchmarks of the product as a whole: robustness, long runs, packaging."""
