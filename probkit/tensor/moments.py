"""Moments of the weights, and of the surface at the entries."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from probkit.tensor.entries import Entries
from probkit.tensor.structure import CP, Tucker

__all__ = ["moments_of", "second_diagonal", "second_moment"]

State = dict[str, Tensor]


def moments_of(
    state: State,
    structure: Tucker | CP,
    entries: Entries,
    packed: Sequence[Tensor],
    means: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    """Mean and variance of f + b for any entries, given tables of row moments."""
    tree, size = entries.tree(0), structure.num_weights
    second, core = second_moment(state), state["core.mean"]
    quadratic = structure.pack_second(second[:size, :size])

    def evaluate(rows: Sequence[Tensor], array: Tensor) -> Tensor:
        root = structure.spread(rows[0], array, 0, tree.order)
        return tree.evaluate(root, rows, structure.combine)

    mean = evaluate(means, structure.core(core[:size])) + core[size]
    cross = evaluate(means, structure.core(second[:size, size]))
    square = evaluate(packed, quadratic) + 2 * cross + second[size, size]
    return mean, (square - mean.square()).clamp_min(0.0)


def second_moment(state: State) -> Tensor:
    """``E[w w']`` of the weights and the intercept, (G + 1, G + 1)."""
    mean = state["core.mean"]
    return state["core.covariance"] + mean[:, None] * mean


def second_diagonal(state: State) -> Tensor:
    """The diagonal of :func:`second_moment`, without the matrix."""
    return torch.diagonal(state["core.covariance"]) + state["core.mean"].square()
