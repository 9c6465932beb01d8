"""A separable equation on a grid: projected on the learned bases, solved by fast diagonalisation.

    u = Q_1 .. Q_d (Z_0 + N_1 .. N_d Y),   b_k N_k = 0

b_k are the rows of the conditions along side k, N_k an orthonormal basis of their null space, and
Z_0 a lift that meets the data on all faces (transfinite interpolation by the functions of least
prior norm). What is left is a Kronecker sum with the factors H_k = N_k' Q_k' (L_k Q_k) N_k. The
nonlinear part is met by Newton steps, each solved by GMRES with the sum, shifted by the mean of the
linearised coefficient, as preconditioner. Cost: N sum r_k a solve.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, gmres
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.infer.protocols import State, StepInfo
from probkit.linalg.kronecker_sum import KroneckerSum, mode_product
from probkit.pde.grid_basis import GridBasis
from probkit.pde.newton import pointwise
from probkit.pde.problem import PDE, Problem

__all__ = ["AxisCondition", "GridSystem", "separable"]

_STEP_TOLERANCE = 1e-10
_FIRST_TOLERANCE, _TOLERANCE = 1e-3, 1e-9
_KRYLOV = 30

AxisCondition = tuple[tuple[tuple[float, int], ...], float, Tensor]
"""functional, coordinate along the axis, data over the grids of the other axes"""


def separable(problem: Problem) -> bool:
    """Whether this route applies: exact data, constant coefficients, each term along one axis,
    second derivatives of one sign, and either a condition at both ends or a period on every axis.
    """
    pde = problem.pde
    if problem.noise > 0 or problem.data is not None or not pde.terms:
        return False
    if any(isinstance(c.where, Tensor) or c.noise > 0 for c in problem.conditions):
        return False
    plain = all(
        not callable(t.coefficient)
        and torch.as_tensor(t.coefficient).dim() == 0
        and sum(o > 0 for o in t.orders) <= 1
        for t in pde.terms
    )
    if not plain or pde.nonlinear_arguments != [(0,) * pde.dim]:
        return False
    along = [t for t in pde.terms if sum(t.orders)]
    signs = {float(t.coefficient) > 0 for t in along}
    elliptic = len(signs) == 1 and all(sum(t.orders) == 2 for t in along)
    return elliptic and all(_closed(problem, axis) for axis in range(pde.dim))


def _closed(problem: Problem, axis: int) -> bool:
    own = [c for c in problem.conditions if isinstance(c.where, tuple) and c.where[0] == axis]
    if any(c.kind == "periodic" for c in own):
        return True
    return sorted(c.where[1] for c in own if isinstance(c.where, tuple)) == [0, 1]


class GridSystem:
    """The projected problem.

    Args:
        pde: separable; see :func:`separable`.
        bases: one a side.
        conditions: those along every side.
        source: on the grid.
    """

    def __init__(
        self,
        pde: PDE,
        bases: Sequence[GridBasis],
        conditions: Sequence[Sequence[AxisCondition]],
        source: Tensor,
    ) -> None:
        self.pde, self.bases = pde, list(bases)
        self.shift, operators = _operators(pde, self.bases)
        self._project = [b.values.mT for b in self.bases]
        rows = [_rows(b, own) for b, own in zip(self.bases, conditions, strict=True)]
        self.null = [_null_space(r) for r in rows]
        self.lift = self._make_lift(rows, conditions)
        self._operators = operators
        factors = [n.mT @ o @ n for n, o in zip(self.null, operators, strict=True)]
        self.sum = KroneckerSum(factors)
        self._source = self._restrict(mode_product(self._project, source))
        self._start = self._source - self._restrict(self._apply(self.lift))

    def initialize(self, generator: torch.Generator) -> State:
        """The linear solution."""
        return {
            "y": self.sum.solve(self._start, self.shift),
            "count": torch.zeros((), dtype=torch.int64),
        }

    def step(self, state: State, generator: torch.Generator) -> tuple[State, StepInfo]:
        """One Newton step; a linear problem is solved already."""
        y, done = state["y"], int(state["count"])
        following = {"y": y, "count": state["count"] + 1}
        if self.pde.nonlinear is None:
            return following, StepInfo(0.0, converged=True, metrics={"change": 0.0})
        u = self.values(self.coefficients(y))
        value, (slope,) = pointwise(self.pde.nonlinear, [u.reshape(-1)])
        value, slope = value.reshape(u.shape), slope.reshape(u.shape)
        reaction = self._restrict(mode_product(self._project, value))
        rest = self._start - self._linear(y) - reaction
        along, count = self._newton(rest, slope, _FIRST_TOLERANCE if done == 0 else _TOLERANCE)
        following["y"] = y + along
        change = float(along.norm() / following["y"].norm())
        info = StepInfo(
            -float(rest.norm()),
            converged=change < _STEP_TOLERANCE,
            metrics={"change": change, "gmres": float(count)},
            message="newton",
        )
        return following, info

    def coefficients(self, y: Tensor) -> Tensor:
        """Coefficients of u in the bases."""
        return mode_product(self.null, y) + self.lift

    def values(self, coefficients: Tensor) -> Tensor:
        """u on the grid."""
        return mode_product([b.values for b in self.bases], coefficients)

    def residual(self, coefficients: Tensor, source: Tensor) -> Tensor:
        """F(u) - f on the whole grid."""
        found = -source
        for term in self.pde.terms:
            rows = [b.at(b.x, o) for b, o in zip(self.bases, term.orders, strict=True)]
            found = found + float(term.coefficient) * mode_product(rows, coefficients)
        if self.pde.nonlinear is not None:
            u = self.values(coefficients).reshape(-1)
            found = found + pointwise(self.pde.nonlinear, [u])[0].reshape(found.shape)
        return found

    def _newton(self, rest: Tensor, slope: Tensor, tolerance: float) -> tuple[Tensor, int]:
        shape, mean = rest.shape, float(slope.mean())
        calls = 0

        def product(flat: np.ndarray) -> np.ndarray:
            y = torch.from_numpy(np.array(flat)).reshape(shape)
            u = self.values(mode_product(self.null, y))
            reaction = self._restrict(mode_product(self._project, slope * u))
            return (self._linear(y) + reaction).reshape(-1).numpy()

        def precondition(flat: np.ndarray) -> np.ndarray:
            nonlocal calls
            calls += 1
            y = torch.from_numpy(np.array(flat)).reshape(shape)
            return self.sum.solve(y, self.shift + mean).reshape(-1).numpy()

        size = (rest.numel(), rest.numel())
        found, _ = gmres(
            LinearOperator(size, matvec=product, dtype=np.float64),
            rest.reshape(-1).numpy(),
            M=LinearOperator(size, matvec=precondition, dtype=np.float64),
            rtol=tolerance,
            restart=_KRYLOV,
            maxiter=1,
        )
        # a solve that falls short is a shorter Newton step: the outer residual is what is judged
        return torch.from_numpy(found).reshape(shape), calls

    def _linear(self, y: Tensor) -> Tensor:
        return self.sum.matmul(y) + self.shift * y

    def _apply(self, coefficients: Tensor) -> Tensor:
        found = self.shift * coefficients
        for k, operator in enumerate(self._operators):
            found = found + torch.tensordot(operator, coefficients, dims=([1], [k])).movedim(0, k)
        return found

    def _restrict(self, coefficients: Tensor) -> Tensor:
        return mode_product([n.mT for n in self.null], coefficients)

    def _make_lift(
        self, rows: Sequence[Tensor], conditions: Sequence[Sequence[AxisCondition]]
    ) -> Tensor:
        """Face after face: what the faces before it do not give yet is added."""
        lift = torch.zeros([b.values.shape[1] for b in self.bases], dtype=torch.float64)
        for axis, own in enumerate(conditions):
            if not own:
                continue
            others = [p for k, p in enumerate(self._project) if k != axis]
            data = torch.stack([mode_product(others, c[2]) for c in own])
            now = torch.tensordot(rows[axis], lift, dims=([1], [axis]))
            weighed = rows[axis] * self.bases[axis].sizes
            least = self.bases[axis].sizes[:, None] * torch.linalg.pinv(weighed)
            lift = lift + torch.tensordot(least, data - now, dims=([1], [0])).movedim(0, axis)
        return lift


def _operators(pde: PDE, bases: Sequence[GridBasis]) -> tuple[float, list[Tensor]]:
    """The zeroth-order coefficient, and Q_k' L_k Q_k of every axis."""
    shift = 0.0
    found = [torch.zeros(b.values.shape[1], b.values.shape[1]).to(b.values) for b in bases]
    for term in pde.terms:
        coefficient = float(term.coefficient)
        axis = next((k for k, order in enumerate(term.orders) if order), None)
        if axis is None:
            shift += coefficient
            continue
        basis = bases[axis]
        found[axis] += coefficient * basis.values.mT @ basis.at(basis.x, term.orders[axis])
    return shift, found


def _rows(basis: GridBasis, conditions: Sequence[AxisCondition]) -> Tensor:
    found = [basis.values.new_zeros(0, basis.values.shape[1])]
    for functional, place, _ in conditions:
        point = torch.tensor([place], dtype=torch.float64)
        found.append(sum((c * basis.at(point, o) for c, o in functional), torch.zeros(1, 1)))
    return torch.cat(found).to(torch.float64)


def _null_space(rows: Tensor) -> Tensor:
    """Orthonormal columns on which the rows vanish."""
    count, size = rows.shape
    if count >= size:
        raise ConfigurationError(
            message(
                "More conditions along a side than functions",
                where="conditions",
                got=count,
                expected=f"< {size}",
                remedy="give more points along that side",
            )
        )
    full = torch.linalg.qr(rows.mT, mode="complete")[0]
    return full[:, count:]
