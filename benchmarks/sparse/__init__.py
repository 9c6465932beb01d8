"""Benchmarks of the sparse family; ``rows`` registers them."""
