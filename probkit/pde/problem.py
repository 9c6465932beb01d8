"""The problem language: an equation, a domain, conditions on its faces, a source, data.

``PDE([Term(1.0, (2,)), Term(4.0, (0,))])`` is u_xx + 4 u = f; with the function
``lambda u: u**3 - u`` a cubic is added, and Burgers' u_t - 0.01 u_xx + u u_x = f is ::

    PDE(
        [Term(1.0, (0, 1)), Term(-0.01, (2, 0))],
        nonlinear=lambda u, ux: u * ux,
        arguments=[(0, 0), (1, 0)],
    )

Coefficients, sources and values are numbers, tensors over the points, or functions of the points
``(n, d) -> (n,)``; in one dimension a function may take ``(n,)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.pde.domains import Box, Mask, Points
from probkit.pde.door import as_coefficient, as_noise, as_place, as_points
from probkit.validation import as_real

__all__ = ["PDE", "Box", "Condition", "Mask", "Points", "Problem", "Term", "Unknown"]

_NAMES = ("x", "y", "z")


@dataclass(frozen=True)
class Unknown:
    """A number to be found: the coefficient of a term, or a noise; a site of the Pyro model.

    Args:
        name: of the site.
        prior: a Pyro distribution without batch or event dimensions.
        factor: what a coefficient is multiplied by: a number, an array over the points or a
            function of them. Several unknowns with such factors make an unknown field.

    Example:
        >>> import pyro.distributions as dist
        >>> PDE([Term(1.0, (2,)), Term(Unknown("theta", dist.Uniform(0.0, 9.0)), (0,))])
        PDE(u_xx + theta u = f)
    """

    name: str
    prior: Any
    factor: Any = 1.0


@dataclass(frozen=True)
class Term:
    """``coefficient`` times the derivative of u of the given orders, one a dimension.

    Raises:
        ConfigurationError: orders that are no counts.
        DtypeError: a coefficient that is no number, array, function or :class:`Unknown`.

    Example:
        >>> Term(2.0, (2, 0)).orders
        (2, 0)
    """

    coefficient: Any
    orders: tuple[int, ...]

    def __post_init__(self) -> None:
        orders = tuple(int(o) if isinstance(o, Integral) else o for o in self.orders)
        object.__setattr__(self, "orders", orders)
        if not isinstance(self.coefficient, Unknown):
            value = as_coefficient(self.coefficient, "Term.coefficient")
            object.__setattr__(self, "coefficient", value)
        if not orders or any(not isinstance(o, int) or o < 0 for o in orders):
            raise ConfigurationError(
                message(
                    "Orders of derivatives are counts",
                    where="Term.orders",
                    got=self.orders,
                    expected="one integer >= 0 a dimension",
                )
            )

    def __str__(self) -> str:
        letters = "".join(_name(k, len(self.orders)) * order for k, order in enumerate(self.orders))
        unknown = f"u_{letters}" if letters else "u"
        if isinstance(self.coefficient, Unknown):
            known = str(Term(self.coefficient.factor, self.orders))
            return f"{self.coefficient.name} {known}"
        if isinstance(self.coefficient, Tensor) or callable(self.coefficient):
            return (
                f"a({', '.join(_name(k, len(self.orders)) for k in range(len(self.orders)))}) "
                f"{unknown}"
            )
        number = float(self.coefficient)
        return unknown if number == 1 else f"{number:g} {unknown}"


@dataclass(frozen=True)
class PDE:
    """A linear operator plus, if need be, a pointwise function of u and its derivatives.

    Args:
        terms: the linear part.
        nonlinear: function of u (or of the derivatives in ``arguments``) added to the left side;
            its derivatives come from autograd.
        arguments: orders of the derivatives that ``nonlinear`` takes; None for u alone. A whole
            equation may be written as a function: no terms, all in ``nonlinear``.

    Example:
        >>> PDE([Term(1.0, (2,)), Term(-1.0, (0,))], nonlinear=lambda u: u**3)
        PDE(u_xx + -1 u + nonlinear(u) = f)
    """

    terms: Sequence[Term]
    nonlinear: Callable[..., Tensor] | None = None
    arguments: Sequence[tuple[int, ...]] | None = None

    def __post_init__(self) -> None:
        written = self.nonlinear is not None and self.arguments is not None
        dims = {len(t.orders) for t in self.terms}
        dims |= {len(a) for a in self.arguments} if written and self.arguments else set()
        if len(dims) != 1:
            raise ConfigurationError(
                message(
                    "The terms must share their number of dimensions",
                    where="PDE.terms",
                    got=[t.orders for t in self.terms],
                    expected="a term, or a function with its arguments; all with as many orders",
                )
            )

    @property
    def dim(self) -> int:
        return len(self.terms[0].orders if self.terms else (self.arguments or [()])[0])

    @property
    def nonlinear_arguments(self) -> list[tuple[int, ...]]:
        """Orders of the derivatives that the nonlinear part takes."""
        return [tuple(a) for a in self.arguments or [(0,) * self.dim]]

    def order(self, axis: int) -> int:
        """Highest derivative along an axis."""
        orders = [t.orders[axis] for t in self.terms]
        if self.nonlinear is not None:
            orders += [a[axis] for a in self.nonlinear_arguments]
        return max(orders)

    def __repr__(self) -> str:
        parts = [str(t) for t in self.terms]
        if self.nonlinear is not None:
            names = [str(Term(1.0, a)) for a in self.nonlinear_arguments]
            parts.append(f"nonlinear({', '.join(names)})")
        return f"PDE({' + '.join(parts)} = f)"


@dataclass(frozen=True)
class Condition:
    """A linear functional of u on a face or at points: ``sum_k c_k d^k u / dx_axis^k = value``.

    Made by the class methods. ``where`` is (axis, side), side 0 for the low end and 1 for the high
    end, or (n, d) points of a curved boundary.

    Raises:
        ConfigurationError: a pair that is no face, or a noise that is negative or no number.
        ShapeError, DtypeError, DataError: points that are no finite matrix.

    Example:
        >>> Condition.dirichlet((0, 1)).where
        (0, 1)
    """

    kind: str
    where: tuple[int, int] | Tensor
    functional: tuple[tuple[float, int], ...]
    value: Any = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", as_place(self.where))
        object.__setattr__(self, "noise", as_noise(self.noise, f"noise of the {self.kind}"))

    @classmethod
    def dirichlet(cls, where: Any, value: Any = 0.0, *, noise: float = 0.0) -> Condition:
        """u = value."""
        return cls("dirichlet", where, ((1.0, 0),), value, noise)

    @classmethod
    def neumann(cls, where: tuple[int, int], value: Any = 0.0, *, noise: float = 0.0) -> Condition:
        """du/dx_axis = value, along the axis (not the outward normal)."""
        return cls("neumann", where, ((1.0, 1),), value, noise)

    @classmethod
    def robin(
        cls,
        where: tuple[int, int],
        value: Any = 0.0,
        *,
        weight: float = 1.0,
        slope: float = 1.0,
        noise: float = 0.0,
    ) -> Condition:
        """weight u + slope du/dx_axis = value."""
        return cls("robin", where, ((weight, 0), (slope, 1)), value, noise)

    @classmethod
    def periodic(cls, axis: int) -> Condition:
        """u and all its derivatives agree at both ends of an axis."""
        return cls("periodic", (axis, 0), ())

    @classmethod
    def initial(cls, axis: int, value: Any = 0.0, *, noise: float = 0.0) -> Condition:
        """u = value at the low end of the time axis."""
        return cls("initial", (axis, 0), ((1.0, 0),), value, noise)

    @classmethod
    def velocity(cls, axis: int, value: Any = 0.0, *, noise: float = 0.0) -> Condition:
        """du/dt = value at the low end of the time axis."""
        return cls("velocity", (axis, 0), ((1.0, 1),), value, noise)


@dataclass(frozen=True)
class Problem:
    """A PDE on a domain, with its conditions, source and data.

    Args:
        pde: the equation.
        domain: box or points.
        conditions: on faces or boundary points.
        source: f, a number, (n,) or grid-shaped tensor, or function of the points: (n,) in one
            dimension, else (n, d).
        noise: standard deviation of the source values; 0 for exact ones.
        data: further observations of u: (points, values, noise standard deviation).

    Coefficients and the two noises may be :class:`Unknown`; ``InverseSolver`` finds them.

    Raises:
        ConfigurationError: a noise that is negative or no number, or data that are no triple.
        ShapeError, DtypeError, DataError: points of data that are no finite matrix.

    Example:
        >>> import pyro.distributions as dist
        >>> pde = PDE([Term(Unknown("diffusivity", dist.Uniform(0.0, 2.0)), (2,))])
        >>> ends = [Condition.dirichlet((0, side)) for side in (0, 1)]
        >>> problem = Problem(pde, Box([(0.0, 1.0)], [9]), ends, source=1.0)
        >>> [unknown.name for unknown in problem.unknowns()]
        ['diffusivity']
    """

    pde: PDE
    domain: Box | Mask | Points
    conditions: Sequence[Condition] = field(default_factory=tuple)
    source: Any = 0.0
    noise: Any = 0.0
    data: tuple[Any, Any, Any] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.noise, Unknown):
            object.__setattr__(self, "noise", as_noise(self.noise, "noise"))
        if self.data is None:
            return
        if not isinstance(self.data, list | tuple) or len(self.data) != 3:
            raise ConfigurationError(
                message("Data are (points, values, noise)", where="data", got=type(self.data))
            )
        x, y, sd = self.data
        sd = sd if isinstance(sd, Unknown) else as_noise(sd, "data, the noise")
        points = as_points(x, "data, the points")
        points = points[:, 0] if as_real(x, "data").dim() == 1 else points  # of the shape given
        object.__setattr__(self, "data", (points, y, sd))

    def unknowns(self) -> list[Unknown]:
        """What is to be found: coefficients in the order of the terms, then noises."""
        given = [t.coefficient for t in self.pde.terms] + [self.noise]
        given += [self.data[2]] if self.data is not None else []
        return [value for value in given if isinstance(value, Unknown)]


def _name(axis: int, dim: int) -> str:
    return _NAMES[axis] if dim <= len(_NAMES) else f"x{axis}"
