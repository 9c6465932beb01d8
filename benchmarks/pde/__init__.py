"""Rows of the PDE solver."""
