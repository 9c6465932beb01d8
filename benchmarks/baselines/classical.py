"""The classical solvers for the paper's cases: Chebyshev collocation and second differences.

    A_1 U + U A_2' + g(U) = F,  values on the faces known

A_k being a side's matrix of differentiation. On a line Newton's steps are solved directly; on a
square the linear part is a Sylvester equation, and with g it preconditions GMRES inside Newton.
Chebyshev matrices are Trefethen's; the second differences are central where the equation is of
second order and backward (of second order) where it is of first. Source: Trefethen, Spectral
Methods in MATLAB (2000); LeVeque, Finite Difference Methods (2007).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import schur, solve_triangular
from scipy.sparse.linalg import LinearOperator, gmres

from benchmarks.baselines.chebyshev import chebyshev_interpolate, differentiation
from probkit.pde import Box, Problem

__all__ = ["solve_classical"]

_STEPS, _TOLERANCE = 12, 1e-12
_Array = np.ndarray


def solve_classical(problem: Problem, at: list[_Array], method: str) -> _Array:
    """u on the grid of given coordinates; method "chebyshev" or "differences".

    Takes constant coefficients, one term a side (and a nonlinear part of u), values on faces.
    """
    domain = problem.domain
    assert isinstance(domain, Box)
    sides = []
    for axis, (bounds, num) in enumerate(zip(domain.bounds, domain.sizes, strict=True)):
        (term,) = [t for t in problem.pde.terms if t.orders[axis]]
        x, matrix = _side(bounds, num, term.orders[axis], method)
        sides.append((x, float(term.coefficient) * matrix))
    u, free = _start(problem, [x for x, _ in sides])
    source = _on_grid(problem.source, [x for x, _ in sides])
    if problem.pde.dim == 1:
        u = _line(problem, sides[0][1], u, free[0], source)
    else:
        u = _square(problem, [a for _, a in sides], u, free, source)
    for axis, ((x, _), places) in enumerate(zip(sides, at, strict=True)):
        if method == "chebyshev":
            rows = chebyshev_interpolate(x, places)
        else:
            rows = np.stack([np.interp(places, x, unit) for unit in np.eye(len(x))], 1)
        u = np.moveaxis(np.tensordot(rows, u, axes=(1, axis)), 0, axis)
    return u


def _side(bounds: tuple[float, float], num: int, order: int, method: str) -> tuple[_Array, _Array]:
    """Nodes in rising order and the matrix of the ``order``-th derivative."""
    if method == "chebyshev":
        x, first = differentiation(num, bounds)
        x, first = x[::-1], first[::-1, ::-1]
        return x, first if order == 1 else first @ first
    x = np.linspace(*bounds, num)
    step = x[1] - x[0]
    if order == 2:
        parts = (np.eye(num, k=1), -2 * np.eye(num), np.eye(num, k=-1))
        return x, sum(parts) / step**2
    backward = 1.5 * np.eye(num) - 2 * np.eye(num, k=-1) + 0.5 * np.eye(num, k=-2)
    backward[1] = 0
    backward[1, :2] = -1, 1
    return x, backward / step


def _start(problem: Problem, axes: list[_Array]) -> tuple[_Array, list[_Array]]:
    """The known values on faces, zero inside, and the free nodes of every axis."""
    u = np.zeros([len(x) for x in axes])
    free = [np.ones(len(x), dtype=bool) for x in axes]
    for condition in problem.conditions:
        assert isinstance(condition.where, tuple)
        axis, side = condition.where
        own = list(axes)
        own[axis] = axes[axis][-1:] if side else axes[axis][:1]
        place: list[object] = [slice(None)] * len(axes)
        place[axis] = slice(-1, None) if side else slice(0, 1)
        u[tuple(place)] = _on_grid(condition.value, own)
        free[axis][-1 if side else 0] = False
    return u, free


def _line(problem: Problem, matrix: _Array, u: _Array, free: _Array, source: _Array) -> _Array:
    inner = matrix[np.ix_(free, free)]
    for _ in range(_STEPS):
        value, slope = _pointwise(problem, u[free])
        residual = (matrix @ u - source)[free] + value
        step = np.linalg.solve(inner + np.diag(slope), residual)
        u[free] -= step
        if problem.pde.nonlinear is None or np.abs(step).max() < _TOLERANCE * np.abs(u).max():
            break
    return u


def _square(
    problem: Problem, sides: list[_Array], u: _Array, free: list[_Array], source: _Array
) -> _Array:
    first, second = sides
    block = np.ix_(*free)
    solve = _sylvester(first[np.ix_(free[0], free[0])], second[np.ix_(free[1], free[1])])
    for _ in range(_STEPS):
        value, slope = _pointwise(problem, u[block])
        residual = (first @ u + u @ second.T - source)[block] + value
        step = solve(residual)
        if problem.pde.nonlinear is not None:
            shape, size = residual.shape, residual.size

            def apply(z: _Array, slope: _Array = slope, shape: tuple[int, ...] = shape) -> _Array:
                z = z.reshape(shape)
                return (z + solve(slope * z)).ravel()

            operator = LinearOperator((size, size), matvec=apply)
            step = gmres(operator, step.ravel(), rtol=1e-12, maxiter=50)[0].reshape(shape)
        u[block] -= step
        if problem.pde.nonlinear is None or np.abs(step).max() < _TOLERANCE * np.abs(u).max():
            break
    return u


def _sylvester(first: _Array, second: _Array) -> Callable[[_Array], _Array]:
    """The solver of ``first Z + Z second' = R`` by two Schur forms, made once."""
    upper, left = schur(first, output="complex")
    other, right = schur(second, output="complex")
    diagonal = np.diag(other)
    identity = np.eye(len(upper))

    def solve(rhs: _Array) -> _Array:
        middle = left.conj().T @ rhs @ right.conj()
        found = np.zeros_like(middle)
        for k in range(middle.shape[1] - 1, -1, -1):
            column = middle[:, k] - found[:, k + 1 :] @ other[k, k + 1 :]
            found[:, k] = solve_triangular(upper + diagonal[k] * identity, column)
        return (left @ found @ right.T).real

    return solve


def _pointwise(problem: Problem, u: _Array) -> tuple[_Array, _Array]:
    import torch

    if problem.pde.nonlinear is None:
        return np.zeros_like(u), np.zeros_like(u)
    leaf = torch.from_numpy(np.ascontiguousarray(u)).requires_grad_()
    value = problem.pde.nonlinear(leaf)
    (slope,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach().numpy(), slope.numpy()


def _on_grid(value: object, axes: list[_Array]) -> _Array:
    import torch

    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    shape = grid.shape[:-1]
    if not callable(value):
        return np.full(shape, float(value))  # type: ignore[arg-type]
    points = torch.from_numpy(grid.reshape(-1, len(axes)))
    found = value(points[:, 0] if len(axes) == 1 else points)
    return found.numpy().reshape(shape)
