"""Rows of the inference engines."""
