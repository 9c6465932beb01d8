"""Rows of an inverse problem: those of known terms, of each unknown coefficient, of what is given.

    (A_0 + sum_i theta_i A_i) x = f + e,   e ~ N(0, v_f)
    C x = g,                               to a small tolerance, or with its noise
    P x = y + e,                           e ~ N(0, v_u)

The equation's rows are compressed once: [A_0 A_1 .. f] = Q R, and since Q is orthonormal R stands
for all of them. An evaluation then costs the same for a hundred points and for a million.
Cost: one QR decomposition of (points x features (1 + unknowns)).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.pde.collocation import condition_rows, equation_rows
from probkit.pde.harmonics import Harmonics, product_rows
from probkit.pde.problem import Box, Problem, Term, Unknown
from probkit.pde.spectrum import apparent_noise
from probkit.pde.validation import on_points

__all__ = ["InverseRows", "build_rows", "with_known"]

_TOLERANCE = 1e-4
_LARGEST = 4e9


@dataclass(frozen=True)
class InverseRows:
    """Rows over features.

    Attributes:
        known: (k, m) compressed rows of the terms whose coefficients are known.
        unknown: by name, (k, m) compressed rows of one unit of each coefficient.
        source: (k,) compressed source.
        num_points: rows before the compression.
        conditions, condition_target: (b, m), (b,) rows divided by their tolerance.
        data, data_target: (n, m), (n,) observations of u.
        source_noise, data_noise: standard deviations, or the unknowns that they are.
    """

    known: Float[Tensor, "k m"]
    unknown: dict[str, Float[Tensor, "k m"]]
    source: Float[Tensor, " k"]
    num_points: int
    conditions: Float[Tensor, "b m"]
    condition_target: Float[Tensor, " b"]
    data: Float[Tensor, "n m"]
    data_target: Float[Tensor, " n"]
    source_noise: float | Unknown
    data_noise: float | Unknown


def with_known(problem: Problem) -> Problem:
    """The problem with numbers for its unknowns, to be checked at the door and to choose a band.

    Coefficients become their factors, the noise of the source what its upper band shows.
    """
    terms = [
        Term(t.coefficient.factor, t.orders) if isinstance(t.coefficient, Unknown) else t
        for t in problem.pde.terms
    ]
    noise = _apparent(problem) if isinstance(problem.noise, Unknown) else problem.noise
    data = problem.data
    if data is not None and isinstance(data[2], Unknown):
        data = (data[0], data[1], 1.0)
    return replace(problem, pde=replace(problem.pde, terms=terms), noise=noise, data=data)


def _apparent(problem: Problem) -> float:
    domain = problem.domain
    if not isinstance(domain, Box):
        return 1.0
    source = on_points(problem.source, domain.points(), "source", domain.sizes)
    grid, found = source.reshape(domain.sizes), []
    for axis, (x, (low, high)) in enumerate(zip(domain.axes(), domain.bounds, strict=True)):
        columns = grid.movedim(axis, 0).reshape(len(x), -1)
        found.append(apparent_noise(columns, x, high - low, len(x)))
    return max(min(found), 1e-12)


def build_rows(problem: Problem, sides: Sequence[Harmonics], *, compress: bool) -> InverseRows:
    """Rows of a problem with unknowns.

    Args:
        problem: checked.
        sides: features of every side.
        compress: whether the equation's rows may be replaced by their triangular factor.

    Raises:
        ConfigurationError: more rows than memory.
    """
    pde, x = problem.pde, problem.domain.points()
    size = math.prod(side.num_features for side in sides)
    names = [t.coefficient.name for t in pde.terms if isinstance(t.coefficient, Unknown)]
    _check_memory(len(x), size * (1 + len(names)))
    shape = getattr(problem.domain, "sizes", None)
    source = on_points(problem.source, x, "source", shape)
    fixed = [t for t in pde.terms if not isinstance(t.coefficient, Unknown)]
    known = x.new_zeros(len(x), size)
    if fixed:
        known = equation_rows(replace(pde, terms=fixed, nonlinear=None), sides, x)
    unknown: dict[str, Tensor] = {}
    for term in pde.terms:
        if isinstance(term.coefficient, Unknown):
            own = Term(term.coefficient.factor, term.orders)
            rows = equation_rows(replace(pde, terms=[own], nonlinear=None), sides, x)
            name = term.coefficient.name
            unknown[name] = unknown[name] + rows if name in unknown else rows
    data, target, data_noise = _data_rows(problem, sides, size)
    level = float(target.square().mean().sqrt()) if len(target) else 1.0
    conditions, wanted = _condition_rows(problem, sides, size, level)
    noise = problem.noise
    if not isinstance(noise, Unknown) and noise == 0:
        noise = _TOLERANCE * (float(source.square().mean().sqrt()) or level)
    if compress:
        known, unknown, source = _compressed(known, unknown, source)
    return InverseRows(
        known, unknown, source, len(x), conditions, wanted, data, target, noise, data_noise
    )


def _compressed(
    known: Tensor, unknown: dict[str, Tensor], source: Tensor
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    blocks = [known, *unknown.values(), source[:, None]]
    joined = torch.cat(blocks, 1)
    if len(joined) > joined.shape[1]:
        joined = torch.linalg.qr(joined, mode="r").R
    parts = list(joined.split([block.shape[1] for block in blocks], 1))
    return parts[0], dict(zip(unknown, parts[1:-1], strict=True)), parts[-1][:, 0]


def _condition_rows(
    problem: Problem, sides: Sequence[Harmonics], size: int, level: float
) -> tuple[Tensor, Tensor]:
    rows, targets = [torch.zeros(0, size, dtype=torch.float64)], []
    for condition in problem.conditions:
        if condition.kind == "periodic":
            continue
        found, value = condition_rows(condition, problem, sides)
        tolerance = condition.noise or _TOLERANCE * max(float(value.abs().max()), level)
        rows.append(found / tolerance)
        targets.append(value / tolerance)
    return torch.cat(rows), torch.cat([torch.zeros(0, dtype=torch.float64), *targets])


def _data_rows(
    problem: Problem, sides: Sequence[Harmonics], size: int
) -> tuple[Tensor, Tensor, float | Unknown]:
    if problem.data is None:
        empty = torch.zeros(0, size, dtype=torch.float64)
        return empty, empty[:, 0], 1.0
    at, values, noise = problem.data
    at = torch.as_tensor(at, dtype=torch.float64)
    at = at[:, None] if at.dim() == 1 else at
    target = on_points(values, at, "data")
    if not isinstance(noise, Unknown) and noise == 0:
        noise = _TOLERANCE * (float(target.square().mean().sqrt()) or 1.0)
    return product_rows(sides, at, (0,) * at.shape[1]), target, noise


def _check_memory(rows: int, columns: int) -> None:
    size = 3 * 8.0 * rows * columns
    if size > _LARGEST:
        raise ConfigurationError(
            message(
                "The rows of the inverse problem do not fit into memory",
                where="domain",
                got=f"{rows} points x {columns} columns, about {size / 1e9:.1f} GB",
                expected=f"<= {_LARGEST / 1e9:.0f} GB",
                remedy="use fewer points, or lower max_features",
            )
        )
