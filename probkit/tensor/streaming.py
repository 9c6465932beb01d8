"""Appending entries to a fitted model without its old data.

The fitted posterior is prior times Gaussian information: one site per grid point and mode, a
normal matrix of the weights, a Gamma for the noise. These are kept as sufficient statistics, and a
few sweeps over the new entries add theirs (streaming variational Bayes: Broderick et al., NIPS
2013). Old sites are not revised, so the result depends on the order of the batches, and kernel
hyper-parameters stay as they are; refit for either. New coordinates join the chains with empty
sites. Cost: that of sweeps over the new entries and the grids alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from probkit.statespace.types import Posterior, Sites
from probkit.tensor.entries import MERGE_TOLERANCE, Entries, locate
from probkit.tensor.likelihoods import Gaussian
from probkit.tensor.mode import ModePrior
from probkit.tensor.variational import Sums, TuckerVariational

__all__ = ["append_entries"]

State = dict[str, Tensor]
_SWEEPS = 15


def append_entries(
    problem: TuckerVariational,
    state: State,
    columns: Sequence[Tensor],
    targets: Tensor,
) -> tuple[TuckerVariational, State]:
    """Absorb new entries.

    Args:
        problem: updates of the fitted model; only its grids, kernels and likelihood are used.
        state: the fitted state.
        columns: internal coordinates of the new entries, one (N,) tensor a mode.
        targets: (N,) internal targets.

    Returns:
        The problem on the joined grids and its state.
    """
    memory = _unbalanced(problem, state)
    grids, index = [], []
    for k, column in enumerate(columns):
        grid, rows, old = _join(problem.entries.grids[k], column)
        grids.append(grid)
        index.append(rows)
        for name in ("site_precision", "site_linear"):
            sites = memory[f"mode{k}.{name}"]
            spread = sites.new_zeros(len(grid), *sites.shape[1:])
            spread[old] = sites
            memory[f"mode{k}.{name}"] = spread
    entries = Entries(grids, index, targets)
    fields = {f: getattr(problem, f) for f in ("likelihood", "structure", "kernel_factory", "ard")}
    streaming = _Streaming(entries, **fields, memory=memory)
    with torch.no_grad():
        current = streaming.start()
        for _ in range(_SWEEPS):
            current, _ = streaming.sweep(current, learn=False)
    return replace(problem, entries=Entries(grids, [], targets[:0])), streaming.total(current)


@dataclass
class _Streaming(TuckerVariational):
    """Coordinate updates in which old information is added to that of the entries."""

    memory: State | None = None

    def start(self) -> State:
        """The old posterior on the joined grids, with local entries for the new data."""
        assert self.memory is not None
        state = dict(self.memory)
        fresh = self.likelihood.initial(self.entries.targets)
        state |= {n: v for n, v in fresh.items() if n.startswith("local.") and v.dim() == 1}
        for k in range(self.entries.num_modes):
            old = Sites(
                state[f"mode{k}.site_precision"],
                state[f"mode{k}.site_linear"],
                self.entries.targets.new_zeros(()),
            )
            state |= self._mode_state(k, self.mode(state, k), self.mode(state, k).posterior(old))
        return state

    def sites(self, state: State, k: int, sums: Sums) -> Sites:
        assert self.memory is not None
        new = super().sites(state, k, sums)
        return Sites(
            new.precision + self.memory[f"mode{k}.site_precision"],
            new.linear + self.memory[f"mode{k}.site_linear"],
            new.log_scale,
        )

    def update_core(self, state: State, normal: Tensor, vector: Tensor) -> State:
        assert self.memory is not None
        precision = self.likelihood.precision(state)
        total = precision * normal + self.memory["core.precision"]
        factor = torch.linalg.cholesky(total)
        covariance = torch.cholesky_inverse(factor)
        linear = precision * vector + self.memory["core.linear"]
        return {"core.covariance": covariance, "core.mean": covariance @ linear}

    def _balance(
        self, state: State, k: int, prior: ModePrior, squares: Tensor, new: State
    ) -> Tensor:
        # the kept sites belong to the present scales
        return torch.ones_like(squares)

    def total(self, state: State) -> State:
        """The state with the noise of old and new entries together."""
        return {n: v for n, v in state.items() if n not in ("core.precision", "core.linear")}

    def update_local(self, state: State, squares: Tensor) -> tuple[State, Tensor]:
        assert self.memory is not None
        new: State = {}
        if isinstance(self.likelihood, Gaussian):
            new["noise.shape"] = self.memory["noise.shape"] + self.entries.num_entries / 2
            new["noise.rate"] = self.memory["noise.rate"] + 0.5 * squares.clamp_min(0)
        if self.likelihood.needs_moments:
            mean, variance = self.entry_moments(state | new)
            df = state.get("local.df")
            found = self.likelihood.update_local(
                state | new, self.entries.targets, mean, variance, self.damping
            )
            new = {**found, **new}
            if df is not None:
                new["local.df"] = df
        return new, squares.new_zeros(())

    def _mode_state(self, k: int, prior: ModePrior, posterior: Posterior) -> State:
        _, H = prior.stacked()
        return {
            f"mode{k}.mean": posterior.mean,
            f"mode{k}.covariance": posterior.covariance,
            f"mode{k}.cross": posterior.cross,
            f"mode{k}.row_mean": posterior.mean @ H.mT,
            f"mode{k}.row_covariance": H @ posterior.covariance @ H.mT,
            f"mode{k}.scale": torch.ones(prior.rank).to(posterior.mean),
        }


def _unbalanced(problem: TuckerVariational, state: State) -> State:
    """The same posterior with every factor on its prior's scale, and the weights' information."""
    memory = dict(state)
    shape = problem.shape(state)
    scale = torch.ones_like(state["core.mean"])
    for k in range(problem.entries.num_modes):
        own = state[f"mode{k}.scale"]
        scale[:-1] = scale[:-1] / own[shape.slice_index(k).to(own.device)]
    covariance = state["core.covariance"] * scale[:, None] * scale
    precision = torch.linalg.inv(covariance)
    memory["core.mean"], memory["core.covariance"] = state["core.mean"] * scale, covariance
    memory["core.precision"] = 0.5 * (precision + precision.mT)
    memory["core.linear"] = precision @ memory["core.mean"]
    return memory


def _join(grid: Tensor, column: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Joined grid, rows of the new entries in it, and rows of the old grid points."""
    values, inverse = torch.unique(column, return_inverse=True)
    position = locate(grid, values)
    extra = values[position < 0]
    if len(extra) > 1:
        keep = torch.ones(len(extra), dtype=torch.bool)
        keep[1:] = extra[1:] - extra[:-1] >= MERGE_TOLERANCE
        extra = extra[keep]
    joined = torch.sort(torch.cat([grid, extra]))[0]
    return joined, locate(joined, values)[inverse], locate(joined, grid)
