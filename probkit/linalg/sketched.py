"""Tall least squares with rows known by their products only: LSQR preconditioned by sampled rows.

    min_z norm(A z - y)^2 + v norm(z)^2,   S [A; v^(1/2) I] = Q R,   w = R z

S samples rows with given probabilities and rescales them, so that R'R is near A'A + v I and the
iteration in w has a condition number near one, whatever that of A is; nothing is squared. The
residual of the normal equations is checked at the end.

Source: Avron, Maymounkov & Toledo, SIAM J. Sci. Comput. 32 (2010) (Blendenpik); Drineas, Mahoney &
Muthukrishnan, SODA (2006) (leverage sampling); Paige & Saunders, ACM TOMS 8 (1982) (LSQR).
Cost: one QR decomposition of (oversampling m + m) x m, then two products with A an iteration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.sparse.linalg import LinearOperator, lsqr
from torch import Tensor

from probkit.errors import NumericalError, message

__all__ = ["RowBlock", "SketchedSolution", "sampled_root", "sketched_solve"]

_TOLERANCE = 1e-15
_ALL = 2.0


class RowBlock(Protocol):
    """A block of rows of A with what they should give."""

    @property
    def target(self) -> Tensor: ...

    @property
    def weight(self) -> float: ...

    def apply(self, weights: Float[Tensor, " m"]) -> Float[Tensor, " n"]: ...

    def adjoint(self, values: Float[Tensor, " n"]) -> Float[Tensor, " m"]: ...

    def dense(self, chosen: Int64[Tensor, " k"]) -> Float[Tensor, "k m"]: ...

    def gram(self) -> Float[Tensor, "m m"]: ...

    def probabilities(self) -> Float[Tensor, " n"]: ...


class SketchedSolution(NamedTuple):
    """Solution, norm of what is left, iterations, and whether they sufficed."""

    value: Float[Tensor, " m"]
    residual: float
    num_steps: int
    converged: bool


def sampled_root(
    blocks: Sequence[RowBlock],
    variance: float,
    generator: torch.Generator,
    *,
    oversampling: float = 3.0,
) -> Float[Tensor, "m m"]:
    """Upper triangular R with R'R near A'A + variance I.

    Args:
        blocks: the rows of A.
        variance: v, relative to the mean squared norm of the sampled columns.
        generator: of the sample.
        oversampling: sampled rows of a large block, relative to the unknowns.
    """
    parts = []
    size = 0
    for block in blocks:
        count = len(block.target)
        if not count:
            continue
        first = block.dense(torch.zeros(1, dtype=torch.int64))
        size = first.shape[1]
        wanted = int(oversampling * size)
        if count <= _ALL * wanted:  # a sample with replacement would miss a third of so few
            parts.append(block.dense(torch.arange(count)))
            continue
        chance = block.probabilities()
        chosen = torch.multinomial(chance, wanted, replacement=True, generator=generator)
        parts.append(block.dense(chosen) / (wanted * chance[chosen]).sqrt()[:, None])
    prior = variance**0.5 * torch.eye(size, dtype=torch.float64)
    root: Tensor = torch.linalg.qr(torch.cat([*parts, prior]), mode="r")[1]
    return root


def sketched_solve(
    blocks: Sequence[RowBlock],
    right: Sequence[Float[Tensor, " n"]],
    root: Float[Tensor, "m m"],
    variance: float,
    *,
    present: Float[Tensor, " m"],
    max_steps: int = 100,
) -> SketchedSolution:
    """Minimise sum norm(A_b (present + d) - y_b)^2 + v norm(present + d)^2 over d.

    Args:
        blocks: the rows.
        right: what is left of every block's target at ``present``, weighed.
        root: from :func:`sampled_root`.
        variance: v.
        present: where the search starts.

    Raises:
        NumericalError: the root is singular.
    """
    if not bool((root.diagonal().abs() > 0).all()):
        raise NumericalError(
            message("The sampled rows do not determine the unknowns", remedy="raise the variance")
        )
    lengths = [len(r) for r in right]
    small = variance**0.5

    def back(white: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(root, white[:, None], upper=True)[:, 0]

    def product(flat: np.ndarray) -> np.ndarray:
        step = back(torch.from_numpy(np.array(flat).reshape(-1)))
        return torch.cat([*(b.apply(step) for b in blocks), small * step]).numpy()

    def adjoint(flat: np.ndarray) -> np.ndarray:
        values = torch.from_numpy(np.array(flat).reshape(-1)).split([*lengths, len(present)])
        total = small * values[-1]
        for block, value in zip(blocks, values, strict=False):
            total = total + block.adjoint(value)
        return torch.linalg.solve_triangular(root.mT, total[:, None], upper=False)[:, 0].numpy()

    wanted = torch.cat([*right, -small * present])
    shape = (len(wanted), len(present))
    operator = LinearOperator(shape, matvec=product, rmatvec=adjoint, dtype=np.float64)
    found = lsqr(operator, wanted.numpy(), atol=_TOLERANCE, btol=_TOLERANCE, iter_lim=max_steps)
    value = present + back(torch.from_numpy(found[0]))
    return SketchedSolution(value, float(found[3]), int(found[2]), int(found[1]) != 7)
