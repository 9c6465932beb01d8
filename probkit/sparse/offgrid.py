"""Off-grid refinement: the points of a dictionary's grid that carry signal are moved.

A dictionary that samples a continuous parameter (the angle of a path) on a grid represents a value
between two points by many atoms. Here column i of factor k is ``response(t_k,i)``, and

    max over t, g, v of  log p(y; A_1(t_1) x ... x A_I(t_I), g_1 x ... x g_I, v)

is found by L-BFGS over the kept slices' points (in grid spacings), log scales and log noise, from
the on-grid solution; then slices not worth the price of their scale and point are dropped, absent
ones of the grid that are worth it are taken up, and so on until neither happens.
Cost: a pass and a backward pass of ``response`` for a step, on few slices.
Source: arXiv 2412.00310 moves points within EM, one factor at a time; this does all jointly.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from probkit.infer.protocols import State, StepInfo
from probkit.infer.quasi_newton import Memory, direction, remember, wolfe_search
from probkit.linalg.kronecker_derivatives import factor_gradients
from probkit.linalg.kronecker_gaussian import kronecker_log_evidence
from probkit.sparse.grids import GridDictionary, empty_memory, spacing_of
from probkit.sparse.posterior import SparsePosterior
from probkit.sparse.problem import Problem
from probkit.sparse.program import NOISE_FLOOR, Layout, RecoveryProgram, get_scales
from probkit.sparse.slices import drop_worth, entry_worth

__all__ = ["OffGridProgram"]

_NEGLIGIBLE = 1e-8
_MAX_CYCLES = 60


class OffGridProgram:
    """Sweeps of the refinement for one problem, for ``CAVI``.

    Args:
        problem: on the grid, in the user's units, B = 1.
        layout: how to shape the result.
        dictionaries: for each factor the grid dictionary, or None where its matrix stays.
        start: scales and noise of the on-grid solution.
        tolerance: of the relative change of the evidence that ends a search.
    """

    phases = ("move", "drop", "enter")

    def __init__(
        self,
        problem: Problem,
        layout: Layout,
        *,
        dictionaries: list[GridDictionary | None],
        start: SparsePosterior,
        tolerance: float = 1e-6,
    ) -> None:
        self.problem, self.layout, self.dictionaries = problem, layout, dictionaries
        self.start, self.tolerance = start, tolerance
        self.learn = problem.noise is None
        self.grids = [
            torch.zeros(n, dtype=problem.real_dtype, device=problem.y.device)
            if d is None
            else d.grid.to(problem.y.device, problem.real_dtype)
            for n, d in zip(problem.sizes, dictionaries, strict=True)
        ]
        self.spacing = [spacing_of(grid) for grid in self.grids]

    def settings(self) -> dict[str, Any]:
        moved = [k for k, d in enumerate(self.dictionaries) if d is not None]
        return {
            "name": type(self).__name__,
            "sizes": self.problem.sizes,
            "moved": moved,
            "tolerance": self.tolerance,
        }

    def initialize(self, generator: torch.Generator) -> State:
        del generator  # the start is given
        state: State = {
            "noise": self.start.noise.clone(),
            "phase": torch.tensor(0),
            "cycles": torch.tensor(0),
            "finished": torch.tensor(False),
        }
        for k, (grid, size) in enumerate(zip(self.grids, self.problem.sizes, strict=True)):
            scale = torch.zeros(1, size, dtype=grid.dtype, device=grid.device)
            scale = scale.scatter_add(-1, self.start.index[k], self.start.scales[k])
            state |= {f"grid_{k}": grid.clone(), f"scale_{k}": scale}
        empty = not all(bool((g > 0).any()) for g in get_scales(state))
        return self._forget({**state, "finished": torch.tensor(empty)})

    def sweep(self, state: State, generator: torch.Generator) -> tuple[State, StepInfo]:
        del generator
        name = self.phases[int(state["phase"])]
        new = state if bool(state["finished"]) else {**state, **getattr(self, name)(state)}
        evidence = float(self._problem(new).active(*self._now(new)).condition().log_evidence)
        segment = -1 - int(state["cycles"])
        return new, StepInfo(
            evidence, converged=bool(new["finished"]), segment=segment, message=name
        )

    def posterior(self, state: State) -> SparsePosterior:
        found = self._recovery(state).posterior(state)
        grids = [g.tolist() for g in get_scales(state, "grid")]
        moved = [d is not None for d in self.dictionaries]
        found.layout["grids"] = [g if m else None for g, m in zip(grids, moved, strict=True)]
        return found

    def diagnostics(self, state: State) -> dict[str, Any]:
        return self._recovery(state).diagnostics(state)

    # -- phases -----------------------------------------------------------------------------------

    def move(self, state: State) -> State:
        """One step of L-BFGS on points, log scales and log noise."""
        kept = [g[0] > 0 for g in get_scales(state)]
        flat = self._pack(state, kept)

        def objective(point: Tensor) -> tuple[Tensor, Tensor]:
            return self._objective(point, state, kept)

        value, gradient = objective(flat)
        memory = Memory(state["steps"], state["changes"], int(state["filled"]))
        search = wolfe_search(objective, flat, value, gradient, direction(memory, gradient))
        if not search.found and memory.filled:  # try once more without the past
            memory = empty_memory(flat)
            search = wolfe_search(objective, flat, value, gradient, direction(memory, gradient))
        memory = remember(memory, search.flat - flat, search.gradient - gradient)
        new = self._unpack(search.flat, state, kept)
        settled = float(value - search.value) < self.tolerance * (1 + abs(float(value)))
        return {
            **new,
            "steps": memory.steps,
            "changes": memory.changes,
            "filled": torch.tensor(memory.filled),
            "phase": torch.tensor(int(settled)),
        }

    def drop(self, state: State) -> State:
        """Drop the least slice of every factor that is not worth its price."""
        active = self._problem(state).active(*self._now(state))
        new, changed = dict(state), False
        for k, index in enumerate(active.index):
            negligible = active.scales[k] < _NEGLIGIBLE * active.scales[k].amax()
            worth = torch.where(negligible, -math.inf, drop_worth(active, k))
            worst = int(worth[0].argmin())
            if float(worth[0, worst]) >= self._price(k):
                continue
            changed = True
            where = index[0, worst]
            new[f"scale_{k}"] = new[f"scale_{k}"].index_fill(-1, where, 0.0)
            back = self.grids[k][where]
            new[f"grid_{k}"] = new[f"grid_{k}"].index_fill(0, where, float(back))
        return self._again(new) if changed else {**new, "phase": torch.tensor(2)}

    def enter(self, state: State) -> State:
        """Take up the absent slice of the grid that gains most beyond its price, if any."""
        problem = self._problem(state)
        active = problem.active(*self._now(state))
        rows = torch.zeros(1, dtype=torch.long, device=problem.y.device)
        best, new = 0.0, {**state, "finished": torch.tensor(True)}
        for k in range(len(self.grids)):
            gain, scale = entry_worth(problem, active, k, rows)
            worth, which = (gain[0] - self._price(k)).max(-1)
            if float(worth) > best:
                best = float(worth)
                added = state[f"scale_{k}"].index_copy(-1, which, scale[:, which].unsqueeze(-1))
                new = {**state, f"scale_{k}": added}
        return new if best == 0.0 else self._again(new)

    # -- helpers ----------------------------------------------------------------------------------

    def _price(self, k: int) -> float:
        """Half the log of the number of data for a scale, and again for a point."""
        return self.problem.penalty * (1 if self.dictionaries[k] is None else 2)

    def _again(self, state: State) -> State:
        """Back to moving, unless that has gone on for too long."""
        cycles = int(state["cycles"]) + 1
        over = torch.tensor(cycles >= _MAX_CYCLES)
        back = {"phase": torch.tensor(0), "cycles": torch.tensor(cycles), "finished": over}
        return self._forget({**state, **back})

    def _forget(self, state: State) -> State:
        """Without the memory of L-BFGS, whose size is that of the kept slices."""
        kept = [g[0] > 0 for g in get_scales(state)]
        memory = empty_memory(self._pack(state, kept))
        steps, changes = memory.steps, memory.changes
        return {**state, "steps": steps, "changes": changes, "filled": torch.tensor(0)}

    def _matrices(self, grids: list[Tensor], kept: list[Tensor] | None = None) -> list[Tensor]:
        """(1, M_k, n_k) each, at the points of the kept slices, or at all."""
        found = []
        for k, (d, grid) in enumerate(zip(self.dictionaries, grids, strict=True)):
            if d is None:
                a = self.problem.factors[k]
                found.append(a if kept is None else a[..., kept[k]])
            else:
                found.append(d.response(grid).to(self.problem.y.dtype).unsqueeze(0))
        return found

    def _problem(self, state: State) -> Problem:
        factors = self._matrices(get_scales(state, "grid"))
        return Problem(factors, self.problem.y, self.problem.noise)

    def _now(self, state: State) -> tuple[list[Tensor], Tensor]:
        return get_scales(state), state["noise"]

    def _recovery(self, state: State) -> RecoveryProgram:
        options = self.settings()
        return _Finished(self._problem(state), self.layout, options, normalize=False)

    def _pack(self, state: State, kept: list[Tensor]) -> Tensor:
        """Points in grid spacings, log scales, log noise."""
        parts = []
        for k, mask in enumerate(kept):
            if self.dictionaries[k] is not None:
                parts.append(state[f"grid_{k}"][mask] / self.spacing[k])
            parts.append(state[f"scale_{k}"][0, mask].log())
        if self.learn:
            floor = NOISE_FLOOR * self.problem.power
            parts.append(torch.maximum(state["noise"] - floor, floor).log())
        return torch.cat(parts)

    def _split(
        self, flat: Tensor, state: State, kept: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Points and scales of the kept slices, and the noise."""
        points, scales, start = [], [], 0
        for k, mask in enumerate(kept):
            size = int(mask.sum())
            if self.dictionaries[k] is None:
                points.append(state[f"grid_{k}"][mask])
            else:
                points.append(flat[start : start + size] * self.spacing[k])
                start += size
            scales.append(flat[start : start + size].exp())
            start += size
        if not self.learn:
            return points, scales, state["noise"]
        floor = NOISE_FLOOR * self.problem.power
        return points, scales, floor + flat[start:].exp()

    def _unpack(self, flat: Tensor, state: State, kept: list[Tensor]) -> State:
        points, scales, noise = self._split(flat, state, kept)
        new = {**state, "noise": noise}
        for k, mask in enumerate(kept):
            new[f"grid_{k}"] = state[f"grid_{k}"].masked_scatter(mask, points[k])
            new[f"scale_{k}"] = state[f"scale_{k}"].masked_scatter(mask.unsqueeze(0), scales[k])
        return new

    def _objective(self, flat: Tensor, state: State, kept: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Minus the log evidence and its gradient."""
        leaf = flat.detach().requires_grad_()
        points, scales, noise = self._split(leaf, state, kept)
        factors = self._matrices(points, kept)
        fixed = [a.detach() for a in factors]
        rows = [g.unsqueeze(0) for g in scales]
        evidence = kronecker_log_evidence(fixed, rows, noise, self.problem.y).sum()
        slopes = factor_gradients(fixed, [g.detach() for g in rows], noise.detach(), self.problem.y)
        total = evidence
        for slope, a, b in zip(slopes, factors, fixed, strict=True):
            change = slope.conj() * (a - b)
            total = total + (change.real if change.is_complex() else change).sum()
        (gradient,) = torch.autograd.grad(total, leaf)
        return -evidence.detach(), -gradient


class _Finished(RecoveryProgram):
    """Posterior and diagnostics of given scales: no sweeps."""

    def _best(self, state: State) -> tuple[list[Tensor], Tensor]:
        return get_scales(state), state["noise"]
