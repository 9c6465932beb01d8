"""The metric of Hamiltonian Monte Carlo: a factor of the covariance, from pooled draws.

Draws of all chains enter one running mean and sum of squares (Chan, Golub & LeVeque, 1983).
Variances are shrunk towards a thousandth as in Stan, ``(n s + 5e-3) / (n + 5)``. A dense metric
adds the correlations R, shrunk towards none: ``(1 - a) R + a I`` with the oracle approximating
``a`` of Chen, Wiesel, Eldar & Hero (IEEE Trans. Signal Process. 58 (2010), eq. 23),

    a = (mean(R^2) + 1) / ((n + 1) (mean(R^2) - 1 / d)),    at most 1,

so that with few draws, or without correlations, it becomes the diagonal one.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.infer.protocols import State

__all__ = ["empty_moments", "factor_of", "join_moments", "whiten"]

_PRIOR_DRAWS, _PRIOR_VARIANCE = 5.0, 1e-3


def empty_moments(size: int, dense: bool, like: Tensor) -> State:
    """No draws yet; ``spread`` is (size,) or (size, size)."""
    spread = (size, size) if dense else (size,)
    return {
        "moments.count": like.new_zeros(()),
        "moments.mean": like.new_zeros(size),
        "moments.spread": like.new_zeros(spread),
    }


def join_moments(moments: State, draws: Float[Tensor, "draw size"]) -> State:
    """Moments after some more draws.

    Example:
        >>> x = torch.arange(8.0).reshape(4, 2)
        >>> moments = join_moments(empty_moments(2, False, x), x[:1])
        >>> join_moments(moments, x[1:])["moments.spread"] / 3 == x.var(0)
        tensor([True, True])
    """
    count, mean = moments["moments.count"], moments["moments.mean"]
    spread = moments["moments.spread"]
    new = draws.mean(0)
    residual, gap = draws - new, new - mean
    total = count + len(draws)
    share = count * len(draws) / total
    if spread.dim() == 1:
        added = residual.square().sum(0) + share * gap.square()
    else:
        added = residual.mT @ residual + share * torch.outer(gap, gap)
    return {
        "moments.count": total,
        "moments.mean": mean + gap * len(draws) / total,
        "moments.spread": spread + added,
    }


def factor_of(moments: State) -> Float[Tensor, "..."]:
    """Standard deviations (size,), or the lower Cholesky factor (size, size)."""
    count, spread = moments["moments.count"], moments["moments.spread"]
    total = count + _PRIOR_DRAWS
    covariance = spread / (count - 1)
    variances = covariance if spread.dim() == 1 else covariance.diagonal()
    scales = (variances * (count / total) + _PRIOR_VARIANCE * _PRIOR_DRAWS / total).sqrt()
    if spread.dim() == 1:
        return scales
    return scales[:, None] * torch.linalg.cholesky(_shrunk_correlation(covariance, float(count)))


def _shrunk_correlation(
    covariance: Float[Tensor, "size size"], count: float
) -> Float[Tensor, "size size"]:
    """Positive definite even where draws are fewer than unknowns, or some never moved."""
    sd = covariance.diagonal().sqrt()
    inverse = torch.where(sd > 0, 1 / sd, torch.zeros_like(sd))
    correlation = inverse[:, None] * covariance * inverse
    correlation.fill_diagonal_(1.0)
    size = len(sd)
    square = float(correlation.square().mean())
    excess = (count + 1) * (square - 1 / size)
    share = min(1.0, (square + 1) / excess) if excess > 0 else 1.0
    eye = torch.eye(size, dtype=correlation.dtype, device=correlation.device)
    return (1 - share) * correlation + share * eye


def whiten(factor: Tensor, positions: Float[Tensor, "chain size"]) -> Float[Tensor, "chain size"]:
    """``S^-1 q`` of each row."""
    if factor.dim() == 1:
        return positions / factor
    return torch.linalg.solve_triangular(factor, positions.mT, upper=False).mT
