"""A problem on a grid, as the grid's solvers share it: source, faces, bases of the sides.

Every side's basis is learned from what the problem shows along it: a random sketch of the source's
unfolding, and the data of the conditions on the other faces.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from probkit.errors import DataError, message
from probkit.pde.characteristics import characteristic_columns, is_time
from probkit.pde.grid_basis import GridBasis, learn_basis, sketch, stack_columns
from probkit.pde.problem import Box, Condition, Mask, Problem, Term
from probkit.pde.spectrum import SpectralPrior, periodogram
from probkit.pde.validation import on_points

__all__ = ["Face", "GridProblem", "GridSettings"]

_CORNER = 1e-6


class GridSettings(Protocol):
    """What the grid's solvers take from :class:`probkit.pde.GPSolver`."""

    @property
    def extension(self) -> float: ...

    @property
    def num_sweeps(self) -> int: ...

    @property
    def band_limit(self) -> float | None: ...

    @property
    def prior(self) -> SpectralPrior | None: ...


@dataclass(frozen=True)
class Face:
    """A condition on a face with its data over the grids of the other axes."""

    condition: Condition
    axis: int
    place: float
    data: Tensor


class GridProblem:
    """A problem on a box or a mask.

    Args:
        problem: checked.
        settings: of the solver.
        generator: of the sketches.
    """

    def __init__(
        self, problem: Problem, settings: GridSettings, generator: torch.Generator
    ) -> None:
        domain = problem.domain
        assert isinstance(domain, Box | Mask)
        self.problem, self.domain = problem, domain
        self.box = domain.box if isinstance(domain, Mask) else domain
        self.where = domain.where() if isinstance(domain, Mask) else None
        self.axes = domain.axes()
        self.source = self._source()
        self.faces = [f for c in problem.conditions if (f := self._face(c)) is not None]
        self._check_corners()
        columns = [self._columns(k, generator) for k in range(domain.dim)]
        for axis in range(domain.dim):
            if is_time(problem, axis) and problem.pde.terms:
                free = characteristic_columns(problem, axis, columns, self.axes, self._mean)
                columns[axis] = torch.cat([columns[axis], sketch(free, generator)], 1)
        self.bases = [self._basis(k, c, settings) for k, c in enumerate(columns)]

    @property
    def operator_size(self) -> float:
        """Size of the operator at the highest frequency that the problem shows."""
        total = 0.0
        pde = self.problem.pde
        speeds = [
            2 * math.pi * max(b.band.top, 1 / (high - low))
            for b, (low, high) in zip(self.bases, self.box.bounds, strict=True)
        ]
        for term in pde.terms:
            size = float(torch.as_tensor(self.coefficient(term.coefficient)).abs().max())
            for speed, order in zip(speeds, term.orders, strict=True):
                size *= speed**order
            total += size
        if not pde.terms:
            for orders in pde.nonlinear_arguments:
                total += math.prod(s**o for s, o in zip(speeds, orders, strict=True))
        return total or 1.0

    def coefficient(self, value: object) -> float | Tensor:
        """A term's coefficient as a number or over the grid."""
        if not callable(value) and torch.as_tensor(value).dim() == 0:
            return float(torch.as_tensor(value))
        found = on_points(value, self.domain.points(), "coefficient", self.box.sizes)
        return self.spread(found)

    def spread(self, values: Tensor) -> Tensor:
        """Values at the points of the domain on the whole grid, zero outside a mask."""
        if self.where is None:
            return values.reshape(self.box.sizes)
        full = values.new_zeros(torch.Size(self.box.sizes).numel())
        return full.index_copy(0, self.where, values).reshape(self.box.sizes)

    def periodic(self, axis: int) -> bool:
        """Whether an axis is periodic."""
        return any(
            c.kind == "periodic" and isinstance(c.where, tuple) and c.where[0] == axis
            for c in self.problem.conditions
        )

    def _source(self) -> Tensor:
        """The source at the points of the domain."""
        source = self.problem.source
        shape = self.box.sizes
        if self.where is not None and isinstance(source, Tensor) and tuple(source.shape) == shape:
            source = source.reshape(-1)[self.where]
        return on_points(source, self.domain.points(), "source", shape)

    def _face(self, condition: Condition) -> Face | None:
        if isinstance(condition.where, Tensor) or condition.kind == "periodic":
            return None
        axis, side = condition.where
        points = self.box.face(axis, side)
        shape = tuple(n for k, n in enumerate(self.box.sizes) if k != axis)
        where = f"value of the {condition.kind} condition"
        data = on_points(condition.value, points, where, shape).reshape(shape)
        return Face(condition, axis, self.box.bounds[axis][side], data)

    def _columns(self, axis: int, generator: torch.Generator) -> Tensor:
        """What the problem shows along an axis.

        On a box each origin counts alike. Where there is a time axis, initial data are the solution
        itself, and the source is turned into its units by the operator's size.
        """
        evolution = any(is_time(self.problem, k) for k in range(self.domain.dim))
        source = self._along(self._whole_source(), axis, generator)
        columns = [source / self._source_unit() if evolution else source]
        for face in self.faces:
            if face.axis != axis:
                own = axis - (face.axis < axis)
                found = self._along(face.data, own, generator)
                slope = max(order for _, order in face.condition.functional)
                speed = _mean_speed(found, self.axes[axis]) if evolution else 1.0
                columns.append(found / speed**slope)
        if not evolution:
            return stack_columns(columns)
        found = torch.cat(columns, 1)
        return found / found.abs().max().clamp(min=1e-300)

    def _source_unit(self) -> float:
        """Size of the operator at the source's mean frequencies."""
        grid = self._whole_source()
        speeds = [
            _mean_speed(grid.movedim(k, 0).reshape(len(x), -1), x) for k, x in enumerate(self.axes)
        ]
        sizes = [
            abs(self._mean(t)) * math.prod(s**o for s, o in zip(speeds, t.orders, strict=True))
            for t in self.problem.pde.terms
        ]
        return max(sizes, default=1.0) or 1.0

    def _basis(self, axis: int, columns: Tensor, settings: GridSettings) -> GridBasis:
        size = float(self.source.abs().max()) or self.problem.noise or 1.0
        return learn_basis(
            columns,
            self.axes[axis],
            self.box.bounds[axis],
            extension=1.0 if self.periodic(axis) else settings.extension,
            num_sweeps=settings.num_sweeps,
            limit=settings.band_limit,
            prior=settings.prior,
            noise=self.problem.noise / size,
        )

    def _mean(self, term: Term) -> float:
        """Mean coefficient of a term."""
        return float(torch.as_tensor(self.coefficient(term.coefficient)).mean())

    def _check_corners(self) -> None:
        """Values given on two faces must agree where the faces meet.

        Raises:
            DataError: they differ, and the conditions are exact.
        """
        given = [f for f in self.faces if f.condition.functional == ((1.0, 0),)]
        for first, second in itertools.combinations(given, 2):
            if first.axis == second.axis or first.condition.noise + second.condition.noise > 0:
                continue
            own = [self._edge(a, b) for a, b in ((first, second), (second, first))]
            size = max(float(f.data.abs().max()) for f in given)
            gap = float((own[0] - own[1]).abs().max())
            if gap > _CORNER * size:
                raise DataError(
                    message(
                        "Conditions disagree at a corner where their faces meet",
                        where=f"faces {first.condition.where} and {second.condition.where}",
                        got=f"values that differ by {gap:.3g}",
                        expected=f"<= {_CORNER:g} of their size, {size:.3g}",
                        remedy="correct the values, or give the conditions a noise",
                    )
                )

    def _edge(self, face: Face, other: Face) -> Tensor:
        """Values of a face where it meets another."""
        axis = other.axis - (face.axis < other.axis)
        last = other.place == self.box.bounds[other.axis][1]
        return face.data.select(axis, -1 if last else 0)

    def _along(self, grid: Tensor, axis: int, generator: torch.Generator) -> Tensor:
        return sketch(grid.movedim(axis, 0).reshape(grid.shape[axis], -1), generator)

    def _whole_source(self) -> Tensor:
        """The source on the box: a function goes on outside a mask, an array ends there."""
        if self.where is not None and callable(self.problem.source):
            found = torch.as_tensor(self.problem.source(self.box.points()), dtype=torch.float64)
            if found.dim() and bool(torch.isfinite(found).all()):
                return found.reshape(self.box.sizes)
        return self.spread(self.source)


def _mean_speed(columns: Tensor, x: Tensor) -> float:
    """Angular frequency of the columns: root mean square, by their power."""
    length = float(x[-1] - x[0])
    grid = torch.arange(1, len(x), dtype=x.dtype) / (2 * length)
    power = periodogram(columns[:, :: max(columns.shape[1] // 50, 1)], x, grid)
    total = float(power.sum())
    if total == 0:
        return 2 * math.pi / length
    return 2 * math.pi * math.sqrt(float((power * grid.square()).sum()) / total)
