"""Components without weight: how much each carries, and its removal from a state."""

from __future__ import annotations

import torch
from torch import Tensor

from probkit.tensor.structure import CP
from probkit.tensor.variational import TuckerVariational

__all__ = ["component_energy", "shrink"]

State = dict[str, Tensor]


def shrink(problem: TuckerVariational, state: State, mode: int, component: int) -> State:
    """Delete one component of one mode (of every mode for CP)."""
    old = problem.shape(state)
    modes = range(len(old.ranks)) if isinstance(old, CP) else (mode,)
    ranks = [r - (k in modes) for k, r in enumerate(old.ranks)]
    keep = torch.tensor([r for r in range(old.ranks[mode]) if r != component])
    new = dict(state)
    new["ranks"] = torch.tensor(ranks)
    for k in modes:
        new[f"mode{k}.row_mean"] = state[f"mode{k}.row_mean"][:, keep]
        new[f"mode{k}.row_covariance"] = state[f"mode{k}.row_covariance"][:, keep][:, :, keep]
        new[f"mode{k}.alpha"] = state[f"mode{k}.alpha"][keep]
        for key in state:
            if key.startswith(f"mode{k}.kernel."):
                new[key] = state[key][keep]
        _drop_paths(new, k)
    weights = torch.nonzero(old.slice_index(mode) != component)[:, 0]
    index = torch.cat([weights, torch.tensor([old.num_weights])])
    new["core.mean"] = state["core.mean"][index]
    new["core.covariance"] = state["core.covariance"][index[:, None], index]
    return new


def component_energy(problem: TuckerVariational, state: State, mode: int) -> Tensor:
    """Expected squared weight of each component of a mode, as a share of the total, (R,)."""
    shape = problem.shape(state)
    second = torch.diagonal(state["core.covariance"]) + state["core.mean"].square()
    total = second.new_zeros(shape.ranks[mode])
    total.index_add_(0, shape.slice_index(mode).to(second.device), second[:-1])
    return total / total.sum()


def _drop_paths(state: State, k: int) -> None:
    """Full paths and sites do not fit the new rank; the next sweep makes them anew."""
    for name in ("mean", "covariance", "cross", "site_precision", "site_linear", "scale"):
        state.pop(f"mode{k}.{name}", None)
