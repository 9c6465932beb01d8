"""Components added to and removed from a state: the moves of the rank search.

Growing appends one component to the modes (new smooth random curves, small weights), so that the
next sweeps can only use it if it helps; shrinking deletes one component's rows, hyper-parameters
and weights. Both return a valid state whose objective is known after the next sweep.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from probkit.tensor.mode import ModePrior
from probkit.tensor.structure import CP, Tucker, make_structure
from probkit.tensor.variational import TuckerVariational, smooth_draws

__all__ = ["component_energy", "grow", "shrink"]

State = dict[str, Tensor]


def grow(
    problem: TuckerVariational, state: State, modes: Sequence[int], generator: torch.Generator
) -> State:
    """Append a component to each of ``modes`` (all modes for CP)."""
    old = problem.shape(state)
    ranks = [r + (k in modes) for k, r in enumerate(old.ranks)]
    new = dict(state)
    new["ranks"] = torch.tensor(ranks)
    for k in modes:
        grid, rank = problem.entries.grids[k], ranks[k]
        mean = state[f"mode{k}.row_mean"]
        curve = smooth_draws(grid, 1, problem.structure, generator).to(mean)
        new[f"mode{k}.row_mean"] = torch.cat([mean, curve], 1)
        covariance = mean.new_zeros(len(grid), rank, rank)
        covariance[:, :-1, :-1] = state[f"mode{k}.row_covariance"]
        covariance[:, -1, -1] = 0.1
        new[f"mode{k}.row_covariance"] = covariance
        new[f"mode{k}.alpha"] = torch.cat([state[f"mode{k}.alpha"], mean.new_ones(1)])
        initial = ModePrior(problem.kernel_factory(k, rank), grid).parameters()
        for name, value in initial.items():
            key = f"mode{k}.kernel.{name}"
            new[key] = torch.cat([state[key], value[-1:].to(mean)])
        _drop_paths(new, k)
    shape = make_structure(problem.structure, ranks)
    keep = _embedding(old, shape)
    size = shape.num_weights
    scale = 0.1 * state["core.mean"][:-1].square().mean().sqrt()
    noise = torch.randn(size, generator=generator, dtype=scale.dtype, device=generator.device)
    core = torch.cat([scale * noise.to(scale), state["core.mean"][-1:]])
    core[keep] = state["core.mean"][:-1]
    new["core.mean"] = core
    covariance = scale.square() * 0.01 * torch.eye(size + 1).to(scale)
    index = torch.cat([keep, torch.tensor([size])])
    covariance[index[:, None], index] = state["core.covariance"]
    new["core.covariance"] = covariance
    return new


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


def _embedding(old: Tucker | CP, new: Tucker | CP) -> Tensor:
    """Positions of the old weights among the new ones."""
    inside = torch.ones(new.num_weights, dtype=torch.bool)
    for k, rank in enumerate(old.ranks):
        inside &= new.slice_index(k) < rank
    return torch.nonzero(inside)[:, 0]
