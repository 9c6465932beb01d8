"""Independent processes stacked to one block-diagonal process."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ShapeError, message
from probkit.statespace.types import Transitions

__all__ = ["block_diagonal", "stack", "stack_batch"]


def stack(components: Sequence[Transitions]) -> Transitions:
    """Joint transitions of independent components: all states of the first, then the second, ...

    Args:
        components: transitions ``(*batch, T, s_k, s_k)`` over the same points.

    Returns:
        ``A`` and ``Q`` of shape ``(*batch, T, n, n)`` with ``n = sum s_k``; the matching ``H`` is
        ``block_diagonal`` of the components' ``H``.

    Raises:
        ShapeError: no component, or components over different numbers of points.

    Example:
        >>> one, two = torch.ones(3, 1, 1), torch.ones(3, 2, 2)
        >>> stack([Transitions(one, one), Transitions(two, two)]).A.shape
        torch.Size([3, 3, 3])
    """
    return Transitions(
        block_diagonal([component.A for component in components]),
        block_diagonal([component.Q for component in components]),
    )


def stack_batch(transitions: Transitions) -> Transitions:
    """Stack the last batch dimension: ``(*batch, R, T, s, s)`` to ``(*batch, T, R s, R s)``.

    Example:
        >>> A = torch.ones(4, 5, 2, 2)
        >>> stack_batch(Transitions(A, A)).Q.shape
        torch.Size([5, 8, 8])
    """
    A, Q = (_spread(x) for x in transitions)
    return Transitions(A, Q)


def block_diagonal(blocks: Sequence[Float[Tensor, "*batch p q"]]) -> Tensor:
    """Block-diagonal matrix of blocks with equal batch dimensions, ``(*batch, sum p, sum q)``."""
    if not blocks or any(block.shape[:-2] != blocks[0].shape[:-2] for block in blocks):
        raise ShapeError(
            message(
                "Components must be given over the same points",
                where="components",
                got=[tuple(block.shape) for block in blocks],
                expected="at least one, with equal leading dimensions",
            )
        )
    width = sum(block.shape[-1] for block in blocks)
    rows, at = [], 0
    for block in blocks:
        end = at + block.shape[-1]
        rows.append(torch.nn.functional.pad(block, (at, width - end)))
        at = end
    return torch.cat(rows, -2)


def _spread(x: Float[Tensor, "*batch R T s s"]) -> Float[Tensor, "*batch T n n"]:
    num_components, s = x.shape[-4], x.shape[-1]
    unit = torch.eye(num_components, dtype=x.dtype, device=x.device)
    spread = torch.einsum("rq,...rtij->...triqj", unit, x)
    return spread.reshape(*x.shape[:-4], x.shape[-3], num_components * s, num_components * s)
