"""Checks at the door: values on points become float64 tensors, or a clear error is raised."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import (
    ConfigurationError,
    DataError,
    PrecisionWarning,
    ProbkitError,
    ShapeError,
    message,
)
from probkit.pde.problem import Box, Problem
from probkit.validation import as_real, check_finite

__all__ = ["check_problem", "on_points"]


def on_points(
    value: Any, x: Float[Tensor, "n d"], where: str, shape: tuple[int, ...] | None = None
) -> Float[Tensor, " n"]:
    """Values at points from a number, an array (flat or grid-shaped) or a function.

    Args:
        shape: of the grid whose points these are, in the order of the axes.

    Raises:
        ShapeError: an array of another shape, or a function that returns one.
        DtypeError: values that are not real numbers.
        DataError: NaN or infinite values, or a function that fails.
    """
    if callable(value):
        points = x[:, 0] if x.shape[1] == 1 else x
        try:
            value = value(points)
        except ProbkitError:
            raise
        except Exception as error:  # of the user's function: any
            raise DataError(
                message(
                    f"The function raised {type(error).__name__}: {error}",
                    where=where,
                    got=f"a call with points of shape {tuple(points.shape)}",
                    expected="values at these points",
                    remedy="functions get (n,) points in one dimension, (n, d) in more",
                )
            ) from error
    found = _to_float64(value, where)
    count = x.shape[0]
    if found.dim() == 0:
        found = found.expand(count)
    elif found.dim() > 1 and tuple(found.shape) == shape:
        found = found.reshape(-1)
    if tuple(found.shape) != (count,):
        expected = f"({count},)" if shape is None else f"({count},) or the grid's {shape}"
        raise ShapeError(
            message(
                "The values do not fit the points",
                where=where,
                got=f"shape {tuple(found.shape)}",
                expected=f"{expected}, axes in the order of the box (indexing='ij')",
            )
        )
    return check_finite(found, where, remedy="leave unobserved points out of the domain (Points)")


def check_problem(problem: Problem) -> None:
    """Check that equation, domain and conditions fit one another.

    Raises:
        ConfigurationError: dimensions that differ, conditions on faces that do not exist, or fewer
            conditions than the orders of the equation need.
    """
    pde, domain = problem.pde, problem.domain
    if problem.unknowns():
        raise ConfigurationError(
            message(
                "The problem has unknown coefficients or noise",
                where="Problem",
                got=[unknown.name for unknown in problem.unknowns()],
                remedy="find them with InverseSolver().fit(problem)",
            )
        )
    if pde.dim != domain.dim:
        raise ConfigurationError(
            message(
                "Equation and domain differ in dimension",
                where="Problem",
                got=f"{pde.dim} in {pde!r}, {domain.dim} in the domain",
            )
        )
    places = [("Condition.where", c.where) for c in problem.conditions]
    places += [("data, the points", problem.data[0])] if problem.data is not None else []
    for name, at in places:
        if isinstance(at, Tensor) and (at.shape[1] if at.dim() == 2 else 1) != pde.dim:
            raise ShapeError(
                message(
                    "Points have the wrong shape",
                    where=name,
                    got=tuple(at.shape),
                    expected=f"(n, {pde.dim})",
                )
            )
    faces = [c.where for c in problem.conditions if isinstance(c.where, tuple)]
    for axis, side in faces:
        if not (0 <= axis < pde.dim and side in (0, 1)):
            raise ConfigurationError(
                message(
                    "There is no such face",
                    where="Condition.where",
                    got=(axis, side),
                    expected=f"axis 0 to {pde.dim - 1}, side 0 (low) or 1 (high)",
                )
            )
    if isinstance(domain, Box) and problem.data is None:
        _check_counts(problem)
    if pde.dim > 1:
        _check_constant(problem)


def _check_constant(problem: Problem) -> None:
    """In two or more dimensions a constant must be fixed by equation, conditions or data."""
    pde = problem.pde
    fixed = pde.nonlinear is not None or problem.data is not None
    fixed = fixed or any(sum(t.orders) == 0 for t in pde.terms)
    fixed = fixed or any(order == 0 for c in problem.conditions for _, order in c.functional)
    if not fixed:
        raise ConfigurationError(
            message(
                "Equation and conditions leave a constant free",
                where="Problem.conditions",
                got=f"derivatives of u only, in {pde!r} and its conditions",
                remedy="pin u at a point: Condition.dirichlet(points, value)",
            )
        )


def _check_counts(problem: Problem) -> None:
    """Along every axis there must be as many conditions as the order of the equation."""
    missing = []
    for axis in range(problem.pde.dim):
        own = [c for c in problem.conditions if isinstance(c.where, tuple) and c.where[0] == axis]
        if any(c.kind == "periodic" for c in own):
            continue
        if len(own) < problem.pde.order(axis):
            sides = {c.where[1] for c in own if isinstance(c.where, tuple)}
            free = [("low", "high")[s] for s in (0, 1) if s not in sides] or ["low", "high"]
            missing.append(f"axis {axis}, {' or '.join(free)} end")
    if missing:
        raise ConfigurationError(
            message(
                f"Too few conditions for {problem.pde!r}",
                where="Problem.conditions",
                got=f"{len(problem.conditions)} conditions",
                expected=f"further ones on {'; '.join(missing)}",
            )
        )


def _to_float64(value: Any, where: str) -> Tensor:
    found = as_real(value, where)
    if found.dim() and found.dtype != torch.float64:
        warnings.warn(
            f"{where}: {found.dtype} values are promoted to float64, in which all solving is done.",
            PrecisionWarning,
            stacklevel=5,
        )
    return found.to(torch.float64)
