"""Benchmarks of private similarity."""
