"""What is left uncertain of a solution on a grid: Gaussian deviations of its coefficients.

    RootSpread   weights z of kept products with precision R'R / v
    DrawSpread   draws of those weights, where they are too many for a root
    SumSpread    (H_1 (+) .. (+) H_d + c) y = e,  e ~ N(0, v I): the misfit of the equation as noise

Either gives variances at points from the rows of every side, and draws of the coefficient tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from probkit.infer.protocols import State
from probkit.linalg.kronecker_sum import KroneckerSum, mode_product

__all__ = ["DrawSpread", "RootSpread", "Spread", "SumSpread", "spread_from"]

_CHUNK = 256


class Spread(Protocol):
    """Deviations of the tensor of coefficients from its mean."""

    def variance(self, rows: Sequence[Float[Tensor, "n r_k"]]) -> Float[Tensor, " n"]:
        """Variance of the product of the sides' rows with the tensor."""
        ...

    def sample(self, num: int, generator: torch.Generator) -> Float[Tensor, "num *r"]:
        """Deviations drawn."""
        ...

    def spec(self) -> dict[str, Any]: ...

    def tensors(self) -> State: ...


class RootSpread:
    """Weights of kept products with precision R'R / v.

    Args:
        root: (m, m) upper triangular R.
        index: (m, d) functions of every side that a product has.
        scale: (m,) size of each product per unit weight.
        sizes: functions of every side.
        variance: v.
    """

    def __init__(
        self,
        root: Float[Tensor, "m m"],
        index: Int64[Tensor, "m d"],
        scale: Float[Tensor, " m"],
        sizes: Sequence[int],
        variance: float,
    ) -> None:
        self.root, self.index, self.scale = root, index, scale
        self.sizes, self.noise = list(sizes), variance

    def variance(self, rows: Sequence[Tensor]) -> Tensor:
        """Squared norms of R^-T times the rows of the products."""
        found = []
        for chunk in zip(*(r.split(_CHUNK) for r in rows), strict=True):
            product = self.scale[None]
            for k, part in enumerate(chunk):
                product = product * part[:, self.index[:, k]]
            white = torch.linalg.solve_triangular(self.root.mT, product.mT, upper=False)
            found.append(white.square().sum(0))
        return self.noise * torch.cat(found)

    def sample(self, num: int, generator: torch.Generator) -> Tensor:
        """R^-1 times standard normal numbers."""
        white = torch.randn(len(self.scale), num, generator=generator, dtype=torch.float64)
        weights = torch.linalg.solve_triangular(self.root, white, upper=True).mT
        return _spread_out(self.noise**0.5 * weights * self.scale, self.index, self.sizes)

    def spec(self) -> dict[str, Any]:
        """What :func:`spread_from` needs besides the tensors."""
        return {"kind": "root", "sizes": self.sizes, "noise": self.noise}

    def tensors(self) -> State:
        """Root and products."""
        return {"root": self.root, "index": self.index, "scale": self.scale}


class DrawSpread:
    """Draws of the deviations of the weights of kept products.

    Args:
        draws: (s, m).
        index, scale, sizes: as of :class:`RootSpread`.
    """

    def __init__(self, draws: Tensor, index: Tensor, scale: Tensor, sizes: Sequence[int]) -> None:
        self.draws, self.index, self.scale, self.sizes = draws, index, scale, list(sizes)

    def variance(self, rows: Sequence[Tensor]) -> Tensor:
        """Mean squares over the draws."""
        product = self.scale[None]
        for k, part in enumerate(rows):
            product = product * part[:, self.index[:, k]]
        return (product @ self.draws.mT).square().mean(1)

    def sample(self, num: int, generator: torch.Generator) -> Tensor:
        """Normal combinations of the draws, which have their covariance."""
        mix = torch.randn(num, len(self.draws), generator=generator, dtype=torch.float64)
        weights = mix @ self.draws / len(self.draws) ** 0.5
        return _spread_out(weights * self.scale, self.index, self.sizes)

    def spec(self) -> dict[str, Any]:
        """What :func:`spread_from` needs besides the tensors."""
        return {"kind": "draws", "sizes": self.sizes}

    def tensors(self) -> State:
        """Draws and products."""
        return {"draws": self.draws, "index": self.index, "scale": self.scale}


class SumSpread:
    """Deviations y that a Kronecker sum makes of white noise of variance v in the equation.

    Args:
        null: (r_k, s_k) functions of every side that meet the conditions.
        factors: (s_k, s_k) of the sum.
        shift: c.
        variance: v.
    """

    def __init__(
        self,
        null: Sequence[Float[Tensor, "r s"]],
        factors: Sequence[Float[Tensor, "s s"]],
        shift: float,
        variance: float,
    ) -> None:
        self.null, self.factors = list(null), list(factors)
        self.shift, self.noise = shift, variance
        self._sum: KroneckerSum | None = None

    @property
    def sum(self) -> KroneckerSum:
        """The operator, decomposed when first needed."""
        if self._sum is None:
            self._sum = KroneckerSum(self.factors)
        return self._sum

    def variance(self, rows: Sequence[Tensor]) -> Tensor:
        """Squared norms of the transposed sum's inverse times the rows."""
        inner = [r @ n for r, n in zip(rows, self.null, strict=True)]
        found = []
        for point in zip(*inner, strict=True):
            product = point[0]
            for part in point[1:]:
                product = product[..., None] * part
            found.append(self.sum.solve_transposed(product, self.shift).square().sum())
        return self.noise * torch.stack(found)

    def sample(self, num: int, generator: torch.Generator) -> Tensor:
        """The sum's inverse times white noise."""
        shape = [len(f) for f in self.factors]
        found = []
        for _ in range(num):
            white = torch.randn(shape, generator=generator, dtype=torch.float64)
            found.append(mode_product(self.null, self.sum.solve(white, self.shift)))
        return self.noise**0.5 * torch.stack(found)

    def spec(self) -> dict[str, Any]:
        """What :func:`spread_from` needs besides the tensors."""
        return {"kind": "sum", "shift": self.shift, "noise": self.noise, "dim": len(self.null)}

    def tensors(self) -> State:
        """Null spaces and factors."""
        return {f"null_{k}": n for k, n in enumerate(self.null)} | {
            f"factor_{k}": f for k, f in enumerate(self.factors)
        }


def spread_from(spec: dict[str, Any], tensors: State) -> Spread:
    """Rebuild a spread from its spec and tensors."""
    if spec["kind"] == "root":
        return RootSpread(
            tensors["root"], tensors["index"], tensors["scale"], spec["sizes"], spec["noise"]
        )
    if spec["kind"] == "draws":
        return DrawSpread(tensors["draws"], tensors["index"], tensors["scale"], spec["sizes"])
    null = [tensors[f"null_{k}"] for k in range(spec["dim"])]
    factors = [tensors[f"factor_{k}"] for k in range(spec["dim"])]
    return SumSpread(null, factors, spec["shift"], spec["noise"])


def _spread_out(weights: Tensor, index: Tensor, sizes: Sequence[int]) -> Tensor:
    """Weights of kept products in the full tensor of coefficients."""
    flat = index[:, 0]
    for k in range(1, len(sizes)):
        flat = flat * sizes[k] + index[:, k]
    full = torch.zeros(len(weights), torch.Size(sizes).numel(), dtype=torch.float64)
    full[:, flat] = weights
    return full.reshape(len(weights), *sizes)
