"""Rows of the fractional family."""
