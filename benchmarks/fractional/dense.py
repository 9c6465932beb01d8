"""Dense algebra that the rows are checked against."""

from __future__ import annotations

import torch
from torch import Tensor


def toeplitz(row: Tensor) -> Tensor:
    """The symmetric Toeplitz matrix of a first row."""
    index = torch.arange(len(row))
    return row[(index[:, None] - index).abs()]


def divergence(true: Tensor, approximate: Tensor) -> float:
    """KL(N(0, true), N(0, approximate)) in nats."""
    left, right = torch.linalg.cholesky(true), torch.linalg.cholesky(approximate)
    ratio = torch.linalg.solve_triangular(right, left, upper=False)
    logs = right.diagonal().log().sum() - left.diagonal().log().sum()
    return float(0.5 * (ratio.square().sum() - len(true)) + logs)


def pieces(covariance: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Log determinant and quadratic forms of series (R, N)."""
    root = torch.linalg.cholesky(covariance)
    white = torch.linalg.solve_triangular(root, values.mT, upper=False)
    return 2 * root.diagonal().log().sum(), white.square().sum(0)
