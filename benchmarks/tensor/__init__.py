"""Benchmarks of the functional Tucker family; ``rows`` registers them."""
