"""A few atoms with a variance each, whose grid points are moved: paths in an array's angles.

    y = B(t) x + e,  x_a ~ N(0, g_a),  column a of B = A_1(t_1,a1) x ... x A_I(t_I,aI)

for a short list of atoms (a1, ..., aI); atoms of one slice share its point. The evidence

    log|C| = (M - n) log v + log|S|,  S = v I + g^(1/2) B^H B g^(1/2),
    y^H C^-1 y = (y^H y - z^H S^-1 z) / v,  z = g^(1/2) B^H y

is maximised by L-BFGS over points, log variances and log noise; atoms not worth half the log of
the number of data are dropped, one after the other. B^H B is an elementwise product of the factors'
Gram matrices, so B is formed for the answer only. Cost of a step: n^3 and I products of M_k n^2.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from probkit.infer.protocols import State, StepInfo
from probkit.infer.quasi_newton import Memory, direction, remember, wolfe_search
from probkit.sparse.grids import GridDictionary, empty_memory, spacing_of
from probkit.sparse.posterior import SparsePosterior
from probkit.sparse.problem import Problem
from probkit.sparse.program import NOISE_FLOOR, Layout, RecoveryProgram, get_scales

__all__ = ["PathProgram"]


class PathProgram:
    """Sweeps for one problem, for ``CAVI``.

    Args:
        problem: on the grid, in the user's units, B = 1.
        layout: how to shape the result.
        dictionaries: for each factor the grid dictionary, or None where its matrix stays.
        grids: the present points, (N_k,).
        start: a recovery whose atoms have variances of their own.
        tolerance: of the relative change of the evidence that ends a search.
    """

    def __init__(
        self,
        problem: Problem,
        layout: Layout,
        *,
        dictionaries: list[GridDictionary | None],
        grids: list[Tensor],
        start: SparsePosterior,
        tolerance: float = 1e-6,
    ) -> None:
        self.problem, self.layout, self.dictionaries = problem, layout, dictionaries
        self.grids, self.start, self.tolerance = grids, start, tolerance
        self.learn = problem.noise is None
        self.spacing = [spacing_of(grid) for grid in grids]

    def settings(self) -> dict[str, Any]:
        moved = [k for k, d in enumerate(self.dictionaries) if d is not None]
        sizes = self.problem.sizes
        return {"name": type(self).__name__, "sizes": sizes, "moved": moved}

    def initialize(self, generator: torch.Generator) -> State:
        del generator  # the start is given
        kept = self.start.scales[0][0] > 0
        state: State = {
            "noise": self.start.noise.clone(),
            "variance": self.start.scales[0][0][kept],
            "atom": torch.stack(
                torch.unravel_index(self.start.index[0][0][kept], tuple(self.problem.sizes))
            ),
            "finished": torch.tensor(not bool(kept.any())),
        }
        for k, grid in enumerate(self.grids):
            state[f"grid_{k}"] = grid.clone()
        return self._forget(state)

    def sweep(self, state: State, generator: torch.Generator) -> tuple[State, StepInfo]:
        """One step of L-BFGS and, where that has settled, the decision which atom to drop."""
        del generator
        flat = self._pack(state)

        def objective(point: Tensor) -> tuple[Tensor, Tensor]:
            leaf = point.detach().requires_grad_()
            minus = -self._evidence(*self._split(leaf, state), state["atom"])
            (gradient,) = torch.autograd.grad(minus, leaf)
            return minus.detach(), gradient

        value, gradient = objective(flat)
        memory = Memory(state["steps"], state["changes"], int(state["filled"]))
        search = wolfe_search(objective, flat, value, gradient, direction(memory, gradient))
        memory = remember(memory, search.flat - flat, search.gradient - gradient)
        points, variance, noise = self._split(search.flat, state)
        new = {**state, "variance": variance, "noise": noise, "filled": torch.tensor(memory.filled)}
        new |= {"steps": memory.steps, "changes": memory.changes}
        new |= {f"grid_{k}": p for k, p in enumerate(points)}
        if float(value - search.value) < self.tolerance * (1 + abs(float(value))):
            new = self._drop(new, -search.value)
        finished = bool(new["finished"])
        segment = -1 - len(self.start.scales[0][0]) + len(new["variance"])
        return new, StepInfo(-float(search.value), converged=finished, segment=segment)

    def posterior(self, state: State) -> SparsePosterior:
        sizes, total = self.problem.sizes, math.prod(self.problem.sizes)
        columns = self._columns(get_scales(state, "grid"), state["atom"])
        matrix = columns[0]
        for c in columns[1:]:
            matrix = (matrix.unsqueeze(1) * c.unsqueeze(0)).flatten(0, 1)
        rows = tuple(self.problem.y.shape[2:])
        problem = Problem([matrix.unsqueeze(0)], self.problem.y.flatten(2), self.problem.noise)
        layout = Layout((), self.layout.snapshots, self.layout.order, (len(matrix[0]),), rows)
        own = {"scale_0": state["variance"].unsqueeze(0), "noise": state["noise"]}
        own["best_score"] = torch.full_like(state["noise"], -math.inf)
        own |= {"best_scale_0": own["scale_0"], "best_noise": own["noise"]}
        found = RecoveryProgram(problem, layout, {}, normalize=False).posterior(own)
        place = state["atom"][0].new_zeros(len(matrix[0]))
        for index, size in zip(state["atom"], sizes, strict=True):
            place = place * size + index
        mean = found.mean_grid.new_zeros(*found.mean_grid.shape[:2], total)
        found.mean_grid = mean.index_copy(-1, place, found.mean_grid)
        probability = found.inclusion[0].new_zeros(1, total)
        found.inclusion = [probability.index_copy(-1, place, found.inclusion[0])]
        found.index = [place[found.index[0]]]
        grids = zip(self.dictionaries, get_scales(state, "grid"), strict=True)
        points = [None if d is None else g.tolist() for d, g in grids]
        found.layout |= {"sizes": [total], "shape": sizes, "grids": points}
        return found

    def diagnostics(self, state: State) -> dict[str, Any]:
        grids = get_scales(state, "grid")
        evidence = self._evidence(grids, state["variance"], state["noise"], state["atom"])
        return {
            "log_evidence": float(evidence),
            "noise": float(state["noise"]),
            "support_sizes": [len(state["variance"])],
            "hyperparameters": "point estimates by maximum evidence; intervals are given them",
        }

    # -- helpers ----------------------------------------------------------------------------------

    def _drop(self, state: State, evidence: Tensor) -> State:
        """Drop the atom that is worth least, if it is not worth its price."""
        count = len(state["variance"])
        grids, best, worst = get_scales(state, "grid"), math.inf, 0
        for a in range(count if count > 1 else 0):
            keep = torch.arange(count, device=evidence.device) != a
            atoms, variance = state["atom"][:, keep], state["variance"][keep]
            lost = float(evidence - self._evidence(grids, variance, state["noise"], atoms))
            best, worst = (lost, a) if lost < best else (best, worst)
        if best >= self.problem.penalty:
            return {**state, "finished": torch.tensor(True)}
        keep = torch.arange(count, device=evidence.device) != worst
        kept = {"atom": state["atom"][:, keep], "variance": state["variance"][keep]}
        return self._forget({**state, **kept})

    def _forget(self, state: State) -> State:
        memory = empty_memory(self._pack(state))
        steps, changes = memory.steps, memory.changes
        return {**state, "steps": steps, "changes": changes, "filled": torch.tensor(0)}

    def _used(self, state: State, k: int) -> Tensor:
        return state["atom"][k].unique()

    def _pack(self, state: State) -> Tensor:
        """Points of the used slices in grid spacings, log variances, log noise."""
        parts = [
            state[f"grid_{k}"][self._used(state, k)] / self.spacing[k]
            for k, d in enumerate(self.dictionaries)
            if d is not None
        ]
        parts.append(state["variance"].log())
        if self.learn:
            floor = NOISE_FLOOR * self.problem.power
            parts.append(torch.maximum(state["noise"] - floor, floor).log())
        return torch.cat(parts)

    def _split(self, flat: Tensor, state: State) -> tuple[list[Tensor], Tensor, Tensor]:
        points, start = [], 0
        for k, d in enumerate(self.dictionaries):
            grid = state[f"grid_{k}"]
            if d is not None:
                used = self._used(state, k)
                moved = flat[start : start + len(used)] * self.spacing[k]
                grid, start = grid.index_copy(0, used, moved), start + len(used)
            points.append(grid)
        count = len(state["variance"])
        variance = flat[start : start + count].exp()
        if not self.learn:
            return points, variance, state["noise"]
        floor = NOISE_FLOOR * self.problem.power
        return points, variance, floor + flat[start + count :].exp()

    def _columns(self, grids: list[Tensor], atoms: Tensor) -> list[Tensor]:
        """Columns of each factor for each atom, (M_k, n)."""
        found = []
        for k, (d, grid) in enumerate(zip(self.dictionaries, grids, strict=True)):
            fixed = self.problem.factors[k][0]
            columns = fixed[:, atoms[k]] if d is None else d.response(grid[atoms[k]])
            found.append(columns.to(self.problem.y.dtype))
        return found

    def _evidence(
        self, grids: list[Tensor], variance: Tensor, noise: Tensor, atoms: Tensor
    ) -> Tensor:
        """log p(y) of the one problem."""
        columns, y = self._columns(grids, atoms), self.problem.y[0]
        gram = torch.ones_like(columns[0].mH @ columns[0])
        inner = y.unsqueeze(-1)  # (L, M_1, ..., M_I, 1)
        for c in columns:
            gram = gram * (c.mH @ c)
            shape = (c.shape[0], *[1] * (inner.dim() - 3), c.shape[1])
            inner = (inner * c.conj().reshape(shape)).sum(1)
        root = variance.sqrt().to(y.dtype)
        eye = torch.eye(len(root), dtype=y.dtype, device=y.device)
        s = noise * eye + root.unsqueeze(-1) * gram * root
        factor, _ = torch.linalg.cholesky_ex(s)
        z = torch.linalg.solve_triangular(factor, (inner * root).mT, upper=False)
        num_columns, num_data = len(y), y[0].numel()
        logdet = 2 * factor.diagonal().real.log().sum() + (num_data - len(root)) * noise.log()
        quadratic = (y.abs().square().sum() - z.abs().square().sum()) / noise
        half = 1.0 if y.is_complex() else 0.5
        constant = num_data * math.log(math.pi / half)
        return -half * (num_columns * (logdet + constant) + quadratic).sum()
