"""What all Newton iterations of the family share: slopes of the nonlinear part, damped steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from probkit.errors import message
from probkit.pde.errors import UnsolvableError

__all__ = ["damped_step", "pointwise"]

_MAX_HALVINGS = 8
_GROWTH = 1e-9


def pointwise(
    function: Callable[..., Tensor], values: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """A pointwise function and its derivatives by each argument.

    Example:
        >>> u, v = torch.tensor([2.0]), torch.tensor([3.0])
        >>> value, slopes = pointwise(lambda u, v: u * v, [u, v])
        >>> value.tolist(), [s.tolist() for s in slopes]
        ([6.0], [[3.0], [2.0]])
    """
    with torch.enable_grad():
        leaves = [v.detach().clone().requires_grad_(True) for v in values]
        found = function(*leaves)
        slopes = torch.autograd.grad(found.sum(), leaves, allow_unused=True)
    filled = [torch.zeros_like(v) if g is None else g for v, g in zip(values, slopes, strict=True)]
    return found.detach(), filled


def damped_step(
    objective: Callable[[Tensor], float], old: Tensor, new: Tensor, rounding: float
) -> Tensor:
    """Halve a Newton step until the objective does not grow; rounding is no growth.

    Where a residual remains, the last steps change the objective by no more than the linear
    solves' own rounding, which has either sign. As only a billionth passes, even a thousand such
    steps add up to a millionth, and the callers' limits on steps end them.

    Args:
        objective: root of what the linear solves minimise, their prior included: the residual
            alone is least elsewhere, and the last steps would seem to make it grow.
        old: the present iterate.
        new: the answer of the linear solve.
        rounding: an objective up to which the problem is solved.

    Raises:
        UnsolvableError: even a small step makes it grow.
    """
    before = objective(old)
    step = 1.0
    for _ in range(_MAX_HALVINGS):
        trial = old + step * (new - old)
        if objective(trial) <= max((1 + _GROWTH) * before, rounding):
            return trial
        step /= 2
    raise UnsolvableError(
        message(
            "Newton's method does not reduce the residual",
            where="nonlinear",
            got=f"residual norm {before:.3g}",
            causes=("a solution branch that ends", "a grid too coarse for the solution"),
            remedy="refine the grid or reduce the strength of the nonlinear part",
        ),
        old,
    )
