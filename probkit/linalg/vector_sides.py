"""Right sides that may be one vector, as ``linear_operator`` takes them, for exact solvers."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

__all__ = ["solve_sides"]


def solve_sides(solve: Callable[[Tensor], Tensor], right: Tensor, left: Tensor | None) -> Tensor:
    """``K^-1 right`` or ``left K^-1 right``, by a solver that takes matrices.

    Args:
        solve: from (*batch, n, c) to the solution of this shape.
        right: (n) or (*batch, n, c).
        left: (*batch, m, n), or None for none.

    Returns:
        (n), (m), (*batch, n, c) or (*batch, m, c).

    Example:
        >>> import torch
        >>> solve_sides(lambda x: x / 2, torch.tensor([2.0, 4.0]), None).tolist()
        [1.0, 2.0]
    """
    is_vector = right.dim() == 1
    solution = solve(right.unsqueeze(-1) if is_vector else right)
    if left is not None:
        solution = left @ solution
    return solution.squeeze(-1) if is_vector else solution
