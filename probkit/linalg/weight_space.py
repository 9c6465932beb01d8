"""Gaussian weights seen through weighed rows with noise: exact Cholesky, or PCG beyond a size.

    z ~ N(0, I),  y_b = A_b z + e,  e ~ N(0, I):   H = I + sum A_b'A_b,   H m = sum A_b'y_b

Up to ``max_exact`` unknowns H = R'R is formed and factorised: mean, covariance and log evidence are
exact. Beyond it H is applied only; the solve is preconditioned by the exact factor of its leading
block (unknowns come in the order of their prior size) and the diagonal of the rest, its residual is
checked, and the spread is held as draws: each solves H z = sum A_b'(y_b + e) + e_0.

Cost: rows m^2 and m^3 / 3; or rows products an iteration. Source: Papandreou & Yuille, NIPS 23
(2010) (draws by perturbation).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import LinearOperator, cg
from torch import Tensor

from probkit.errors import NumericalError, message
from probkit.linalg.cholesky import safe_cholesky
from probkit.linalg.sketched import RowBlock

__all__ = ["WeightSpacePosterior", "weight_space_posterior"]

_TOLERANCE = 1e-10
_ACCEPTED = 1e-6
_LEADING = 1500
_MAX_STEPS = 2000


@dataclass(frozen=True)
class WeightSpacePosterior:
    """Posterior of the whitened weights.

    Attributes:
        mean: m.
        root: R, upper triangular; None beyond the exact size.
        draws: (s, m) draws of z - m; None within it.
        log_evidence: log density of the weighed data; NaN beyond the exact size.
        num_steps: iterations of the solve of the mean.
    """

    mean: Float[Tensor, " m"]
    root: Float[Tensor, "m m"] | None
    draws: Float[Tensor, "s m"] | None
    log_evidence: float
    num_steps: int


def weight_space_posterior(
    blocks: Sequence[RowBlock],
    generator: torch.Generator,
    *,
    max_exact: int = 5000,
    num_draws: int = 64,
) -> WeightSpacePosterior:
    """Posterior of weights under rows with unit noise.

    Args:
        blocks: weighed rows and their targets.
        generator: of the draws beyond ``max_exact``.
        max_exact: unknowns up to which H is factorised.
        num_draws: draws that stand for the spread beyond it.

    Raises:
        NumericalError: the iteration did not reach a relative residual of 1e-6.
    """
    right = [b.weight * b.target for b in blocks]
    moment = _adjoint(blocks, right)
    if len(moment) > max_exact:
        return _iterative(blocks, right, moment, generator, num_draws)
    precision = torch.eye(len(moment), dtype=torch.float64)
    for block in blocks:
        precision = precision + block.gram()
    root = safe_cholesky(precision, where="precision of the weights")[0].mT
    mean = torch.cholesky_solve(moment[:, None], root.mT)[:, 0]
    total = sum(float(y.square().sum()) for y in right)
    count = sum(len(y) for y in right)
    evidence = -0.5 * (total - float(moment @ mean) + count * math.log(2 * math.pi))
    evidence -= float(root.diagonal().log().sum())
    evidence += sum(len(y) * math.log(b.weight) for b, y in zip(blocks, right, strict=True))
    return WeightSpacePosterior(mean, root, None, evidence, 0)


def _iterative(
    blocks: Sequence[RowBlock],
    right: Sequence[Tensor],
    moment: Tensor,
    generator: torch.Generator,
    num_draws: int,
) -> WeightSpacePosterior:
    size = len(moment)
    lead, rest = _preconditioner(blocks, size)

    def precondition(flat: np.ndarray) -> np.ndarray:
        value = torch.from_numpy(np.array(flat).reshape(-1))
        top = torch.cholesky_solve(value[: len(lead), None], lead)[:, 0]
        return torch.cat([top, value[len(lead) :] / rest]).numpy()

    def product(flat: np.ndarray) -> np.ndarray:
        value = torch.from_numpy(np.array(flat).reshape(-1))
        return (value + _adjoint(blocks, [b.apply(value) for b in blocks])).numpy()

    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    helper = LinearOperator((size, size), matvec=precondition, dtype=np.float64)
    steps = 0

    def count(_: np.ndarray) -> None:
        nonlocal steps
        steps += 1

    def solve(wanted: Tensor) -> Tensor:
        rhs = wanted.numpy()
        found, _ = cg(operator, rhs, rtol=_TOLERANCE, maxiter=_MAX_STEPS, M=helper, callback=count)
        value = torch.from_numpy(found)
        left = float((torch.from_numpy(product(found)) - wanted).norm() / wanted.norm())
        if not left < _ACCEPTED:
            raise NumericalError(
                message(
                    "Conjugate gradients did not solve for the weights",
                    got=f"relative residual {left:.2g} after {_MAX_STEPS} iterations",
                    expected=f"< {_ACCEPTED:g}",
                    remedy="keep fewer unknowns, so that the exact factorisation is used",
                )
            )
        return value

    mean = solve(moment)
    steps_of_mean = steps
    draws = []
    for _ in range(num_draws):
        noise = [torch.randn(len(y), generator=generator, dtype=torch.float64) for y in right]
        prior = torch.randn(size, generator=generator, dtype=torch.float64)
        draws.append(solve(_adjoint(blocks, noise) + prior))
    return WeightSpacePosterior(mean, None, torch.stack(draws), math.nan, steps_of_mean)


def _preconditioner(blocks: Sequence[RowBlock], size: int) -> tuple[Tensor, Tensor]:
    """Lower factor of the leading block of H, and an estimate of the diagonal of the rest."""
    lead = torch.eye(_LEADING, dtype=torch.float64)
    diagonal = torch.ones(size, dtype=torch.float64)
    for block in blocks:
        for chosen in torch.arange(len(block.target)).split(_LEADING):
            rows = block.dense(chosen)
            lead += rows[:, :_LEADING].mT @ rows[:, :_LEADING]
            diagonal += rows.square().sum(0)
    return safe_cholesky(lead, where="leading weights")[0], diagonal[_LEADING:]


def _adjoint(blocks: Sequence[RowBlock], values: Sequence[Tensor]) -> Tensor:
    parts = [b.adjoint(v) for b, v in zip(blocks, values, strict=True)]
    return torch.stack(parts).sum(0)
