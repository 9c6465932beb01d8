"""What all Newton iterations of the family share: slopes of the nonlinear part, damped steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from probkit.errors import message
from probkit.pde.errors import UnsolvableError

__all__ = ["damped_step", "pointwise"]

_MAX_HALVINGS = 8
_GROWTH = 1e-6


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
    total: Callable[[Tensor], float], old: Tensor, new: Tensor, rounding: float
) -> Tensor:
    """Halve a Newton step until the residual does not grow; rounding is no growth.

    Nor is a millionth: where a residual remains, the linear solves' small prior moves the least of
    what they minimise away from the least of the residual, which no step then reduces.

    Raises:
        UnsolvableError: even a small step makes it grow.
    """
    before = total(old)
    step = 1.0
    for _ in range(_MAX_HALVINGS):
        trial = old + step * (new - old)
        if total(trial) <= max((1 + _GROWTH) * before, rounding):
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
