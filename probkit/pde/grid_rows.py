"""Rows of an equation over products of side functions: applied by mode products, never formed.

    u = sum_j z_j s_j q_j1(x_1) .. q_jd(x_d),   z_j ~ N(0, 1)

The products kept are those with the largest prior standard deviation s_j = c_j1 .. c_jd. A block of
rows is a sum of terms a_t(x) d^o_t u over the points of a grid, or over part of them (a mask); a
face is a grid with one coordinate along its axis. Scattered points have dense rows. Cost of a
product: N sum r_k a term; memory: the grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from probkit.linalg.kronecker_sum import mode_product
from probkit.pde.grid_basis import GridBasis

__all__ = ["DenseRows", "GridRows", "Products", "choose_products"]

_UNIFORM = 0.5
_CHUNK = 2000


@dataclass(frozen=True)
class Products:
    """The unknowns: kept products of side functions.

    Attributes:
        bases: one a side.
        index: (m, d) which function of every side a product has.
        scale: (m,) prior standard deviations s.
    """

    bases: Sequence[GridBasis]
    index: Int64[Tensor, "m d"]
    scale: Float[Tensor, " m"]

    @property
    def flat(self) -> Int64[Tensor, " m"]:
        """Positions in the full tensor of coefficients."""
        found = self.index[:, 0]
        for k in range(1, len(self.bases)):
            found = found * len(self.bases[k].sizes) + self.index[:, k]
        return found

    def tensor(self, weights: Float[Tensor, " m"]) -> Float[Tensor, "*r"]:
        """Weights z as the tensor of coefficients of the side functions."""
        sizes = [len(b.sizes) for b in self.bases]
        full = weights.new_zeros(torch.Size(sizes).numel())
        return full.index_copy(0, self.flat, weights * self.scale).reshape(sizes)

    def rows(self, x: Float[Tensor, "n d"], orders: Sequence[int]) -> Float[Tensor, "n m"]:
        """Dense rows of a derivative at points."""
        found = self.scale[None]
        for k, basis in enumerate(self.bases):
            found = found * basis.at(x[:, k], orders[k])[:, self.index[:, k]]
        return found


def choose_products(bases: Sequence[GridBasis], most: int, cutoff: float) -> Products:
    """The products of largest prior size: at most ``most``, above ``cutoff`` times the largest."""
    size = bases[0].sizes
    for basis in bases[1:]:
        size = size[..., None] * basis.sizes
    flat = size.reshape(-1)
    order = flat.argsort(descending=True, stable=True)[:most]
    order = order[flat[order] > cutoff * flat[order[0]]]
    index = torch.stack(torch.unravel_index(order, size.shape), 1)
    return Products(list(bases), index, flat[order])


@dataclass(frozen=True)
class GridRows:
    """Weighed rows ``weight * sum_t a_t d^o_t u`` on a grid, and what they should be.

    Args:
        products: the unknowns.
        axes: coordinates along every side.
        terms: (coefficient, orders); a coefficient is a number or a tensor of the grid's shape.
        target: (n,) wanted values, unweighed.
        weight: of all rows.
        where: flat positions of the points that count; None for all.
    """

    products: Products
    axes: Sequence[Tensor]
    terms: Sequence[tuple[float | Tensor, tuple[int, ...]]]
    target: Float[Tensor, " n"]
    weight: float = 1.0
    where: Int64[Tensor, " n"] | None = None
    _factors: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def apply(self, weights: Float[Tensor, " m"]) -> Float[Tensor, " n"]:
        """The rows times the unknowns."""
        coefficients = self.products.tensor(weights)
        found = torch.zeros(self._shape, dtype=weights.dtype)
        for factor, orders in self.terms:
            found = found + factor * mode_product(self._sides(orders), coefficients)
        return self.weight * self._take(found)

    def adjoint(self, values: Float[Tensor, " n"]) -> Float[Tensor, " m"]:
        """The transposed rows times values."""
        spread = self._spread(values)
        total = torch.zeros([len(b.sizes) for b in self.products.bases], dtype=values.dtype)
        for factor, orders in self.terms:
            total = total + mode_product([f.mT for f in self._sides(orders)], factor * spread)
        return self.weight * self.products.scale * total.reshape(-1)[self.products.flat]

    def dense(self, chosen: Int64[Tensor, " k"]) -> Float[Tensor, "k m"]:
        """Some of the rows, formed."""
        position = chosen if self.where is None else self.where[chosen]
        place = torch.unravel_index(position, self._shape)
        total = torch.zeros(len(chosen), len(self.products.scale), dtype=torch.float64)
        for factor, orders in self.terms:
            part = self.products.scale[None].expand_as(total)
            for k, side in enumerate(self._sides(orders)):
                part = part * side[place[k]][:, self.products.index[:, k]]
            if isinstance(factor, Tensor):
                part = factor.reshape(-1)[position][:, None] * part
                total += part
            else:
                total += factor * part
        return self.weight * total

    def gram(self) -> Float[Tensor, "m m"]:
        """Rows' products with one another: by sides where coefficients are constant."""
        if self.where is None and not any(isinstance(c, Tensor) for c, _ in self.terms):
            return self._separable_gram()
        size = len(self.products.scale)
        total = torch.zeros(size, size, dtype=torch.float64)
        for chosen in torch.arange(len(self.target)).split(_CHUNK):
            rows = self.dense(chosen)
            total += rows.mT @ rows
        return total

    def probabilities(self) -> Float[Tensor, " n"]:
        """Chance of every row in a sample: half uniform, half by the sides' leverage."""
        found = torch.ones(1, dtype=torch.float64)
        for k in range(len(self.axes)):
            own = {orders[k] for _, orders in self.terms}
            columns = torch.cat([self._factor(k, order) for order in sorted(own)], 1)
            columns = columns / columns.norm(dim=0).clamp(min=1e-300)
            share = torch.linalg.qr(columns)[0].square().sum(1)
            found = (found[:, None] * share).flatten()
        found = found if self.where is None else found[self.where]
        return _UNIFORM / len(found) + (1 - _UNIFORM) * found / found.sum()

    def with_terms(
        self, terms: Sequence[tuple[float | Tensor, tuple[int, ...]]], target: Tensor
    ) -> GridRows:
        """The same rows with further terms and another target."""
        return replace(self, terms=[*self.terms, *terms], target=target)

    def values(self, weights: Tensor, orders: tuple[int, ...]) -> Float[Tensor, " n"]:
        """One derivative of u at the points of the rows, unweighed."""
        return self._take(mode_product(self._sides(orders), self.products.tensor(weights)))

    def on_grid(self, values: Float[Tensor, " n"]) -> Tensor:
        """Values at the rows as a coefficient on the grid (zero at masked points)."""
        return self._spread(values)

    @property
    def _shape(self) -> list[int]:
        return [len(axis) for axis in self.axes]

    def _factor(self, axis: int, order: int) -> Tensor:
        key = (axis, order)
        if key not in self._factors:
            self._factors[key] = self.products.bases[axis].at(self.axes[axis], order)
        return self._factors[key]

    def _sides(self, orders: tuple[int, ...]) -> list[Tensor]:
        return [self._factor(k, order) for k, order in enumerate(orders)]

    def _take(self, grid: Tensor) -> Tensor:
        flat = grid.reshape(-1)
        return flat if self.where is None else flat[self.where]

    def _spread(self, values: Tensor) -> Tensor:
        if self.where is None:
            return values.reshape(self._shape)
        full = values.new_zeros(torch.Size(self._shape).numel())
        return full.index_copy(0, self.where, values).reshape(self._shape)

    def _separable_gram(self) -> Tensor:
        index, scale = self.products.index, self.products.scale
        total = torch.zeros(len(scale), len(scale), dtype=torch.float64)
        for first, left in self.terms:
            for second, right in self.terms:
                part = first * second * torch.ones(1, 1, dtype=torch.float64)
                for k, (a, b) in enumerate(zip(self._sides(left), self._sides(right), strict=True)):
                    part = part * (a.mT @ b)[index[:, k]][:, index[:, k]]
                total += part
        return self.weight**2 * scale[:, None] * total * scale


@dataclass(frozen=True)
class DenseRows:
    """Weighed rows at scattered points; see :class:`GridRows`."""

    rows: Float[Tensor, "n m"]
    target: Float[Tensor, " n"]
    weight: float = 1.0

    def apply(self, weights: Tensor) -> Tensor:
        """The rows times the unknowns."""
        return self.weight * (self.rows @ weights)

    def adjoint(self, values: Tensor) -> Tensor:
        """The transposed rows times values."""
        return self.weight * (values @ self.rows)

    def dense(self, chosen: Tensor) -> Tensor:
        """Some of the rows."""
        return self.weight * self.rows[chosen]

    def gram(self) -> Tensor:
        """Rows' products with one another."""
        return self.weight**2 * (self.rows.mT @ self.rows)

    def probabilities(self) -> Tensor:
        """Chance of every row in a sample."""
        return torch.full((len(self.target),), 1 / len(self.target), dtype=torch.float64)
