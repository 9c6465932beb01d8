"""Structured matrices, safe factorisations and exact linear algebra."""
