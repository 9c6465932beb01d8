"""Chebyshev collocation: the classical solver that a smooth problem on a box should be given.

Differentiation matrices at x_j = cos(pi j / n), ends replaced by Dirichlet data; a box in two
dimensions by fast diagonalisation. Source: Trefethen, Spectral Methods in MATLAB (2000), programs
6, 13 and 16.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["chebyshev_interpolate", "chebyshev_line", "chebyshev_square", "differentiation"]

Function = Callable[..., np.ndarray]


def chebyshev_line(
    source: Function, ends: tuple[float, float], bounds: tuple[float, float], num: int
) -> tuple[np.ndarray, np.ndarray]:
    """Solve u'' = f with u given at the ends; nodes and values."""
    x, second = _second_derivative(num, bounds)
    u = np.zeros(num)
    u[0], u[-1] = ends[1], ends[0]
    inner = slice(1, num - 1)
    right = source(x[inner]) - second[inner][:, [0, -1]] @ u[[0, -1]]
    u[inner] = np.linalg.solve(second[inner, inner], right)
    return x, u


def chebyshev_square(
    source: Function, boundary: Function, bounds: tuple[float, float], num: int
) -> tuple[np.ndarray, np.ndarray]:
    """Solve u_xx + u_yy = f on a square with u given on its sides; nodes and values."""
    x, second = _second_derivative(num, bounds)
    grid = np.meshgrid(x, x, indexing="ij")
    u = boundary(*grid)
    u[1:-1, 1:-1] = 0
    inner = slice(1, num - 1)
    right = source(*grid)[inner, inner] - (second @ u + u @ second.T)[inner, inner]
    values, vectors = np.linalg.eig(second[inner, inner])
    inverse = np.linalg.inv(vectors)
    middle = (inverse @ right @ inverse.T) / (values[:, None] + values[None])
    u[inner, inner] = (vectors @ middle @ vectors.T).real
    return x, u


def chebyshev_interpolate(nodes: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Barycentric interpolation matrix from the nodes."""
    weight = (-1.0) ** np.arange(len(nodes))
    weight[[0, -1]] /= 2
    difference = at[:, None] - nodes[None]
    exact = np.abs(difference) < 1e-15 * np.abs(nodes).max()
    difference[exact] = 1.0
    rows = weight / difference
    rows /= rows.sum(1, keepdims=True)
    hit = exact.any(1)
    rows[hit] = exact[hit].astype(float)
    return rows


def differentiation(num: int, bounds: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Chebyshev nodes, falling, and the matrix of the first derivative."""
    angle = np.pi * np.arange(num) / (num - 1)
    x = np.cos(angle)
    weight = (-1.0) ** np.arange(num)
    weight[[0, -1]] *= 2
    # the trigonometric form of x_i - x_j keeps all digits
    half = angle / 2
    difference = (
        -2 * np.sin(half[:, None] + half[None]) * np.sin(half[:, None] - half[None])
    ) + np.eye(num)
    first = np.outer(weight, 1 / weight) / difference
    np.fill_diagonal(first, 0)
    np.fill_diagonal(first, -first.sum(1))
    scale = 2 / (bounds[1] - bounds[0])
    first *= scale
    return bounds[0] + (x + 1) / scale, first


def _second_derivative(num: int, bounds: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    x, first = differentiation(num, bounds)
    return x, first @ first
