"""Functional Tucker / CP by the published conditional EP: one stored message an entry and mode.

Fang et al., ICLR 2024, arXiv 2311.04829, with the constants of the code they ship. One epoch:

1. for each mode, for every entry n, moments of a_n (the other modes' product, folded with the
   core's mean) give a message with precision E[tau] E[a a'] and linear term E[tau] y E[a], damped
   against the stored one;
2. at each grid point in turn the entries' messages are multiplied, together with an extra N(0, 1)
   prior at every point, to a pseudo-observation for the Kalman filter; then the RTS smoother;
3. (Tucker) damped messages to the core, posterior without its prior as shipped, mean kept;
4. damped messages to the noise precision tau ~ Gamma(1, 1).

Cost: O(N K R^2) numbers stored for CP, N R^(2K) for the Tucker core, and a Python loop over grid
points. Different from the shipped code: unfoldings of the core agree with one another (theirs do
for one mode of three), and a test point left of the data uses the reversed process, where theirs
inverts the transition and may return a negative variance.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from benchmarks.baselines.smoother_loop import matern_model, smooth_loop

__all__ = ["FunctionalTuckerEP", "Settings"]


@dataclass(frozen=True)
class Settings:
    """Constants of the shipped configurations (PM2.5)."""

    structure: str = "cp"
    rank: int = 3
    nu: float = 0.5
    lengthscale: float = 0.1
    variance: float = 5.0
    damping: float = 0.3
    damping_tau: float = 0.8
    damping_core: float = 0.9
    prior_variance: float = 1.0
    seed: int = 332

    @staticmethod
    def tucker(rank: int = 3) -> Settings:
        return Settings(structure="tucker", rank=rank, variance=1.0, damping=0.5, damping_tau=0.6)


@dataclass
class _Mode:
    """One mode: sorted grid, entries of each grid point, posterior and stored messages."""

    grid: Tensor
    index: Tensor
    entries: tuple[Tensor, ...]
    mean: Tensor
    covariance: Tensor
    precision: Tensor
    linear: Tensor
    start: Tensor
    smoothed: tuple[Tensor, Tensor] | None = field(default=None)


class FunctionalTuckerEP:
    """The published scheme; ``inputs`` (N, K) scaled as the authors do, ``targets`` (N,)."""

    def __init__(self, inputs: Tensor, targets: Tensor, settings: Settings) -> None:
        self.settings, self.targets = settings, targets
        self.generator = torch.Generator().manual_seed(settings.seed)
        rank, num_modes = settings.rank, inputs.shape[1]
        self.process = matern_model(settings.nu, settings.lengthscale, settings.variance, rank)
        self.modes = [self._mode(inputs[:, k].contiguous()) for k in range(num_modes)]
        num_entries = len(targets)
        self.noise_message = torch.ones(num_entries, dtype=torch.float64)
        self.precision = torch.ones((), dtype=torch.float64)
        self.core = torch.ones(rank, dtype=torch.float64)
        if settings.structure == "tucker":
            size = rank**num_modes
            self.core = self._uniform(size)
            self.core_precision = 1e-3 * torch.eye(size, dtype=torch.float64).repeat(
                num_entries, 1, 1
            )
            self.core_linear = 1e-3 * self._uniform(num_entries, size)

    def epoch(self) -> None:
        """One pass of message updates over all modes, the core and the noise."""
        for k, mode in enumerate(self.modes):
            mean, second = self._moments([j for j in range(len(self.modes)) if j != k])
            mean, second = self._fold(mean, second, k)
            keep, tau = self.settings.damping, self.precision
            mode.precision = keep * mode.precision + (1 - keep) * tau * second
            linear = tau * mean * self.targets[:, None]
            mode.linear = keep * mode.linear + (1 - keep) * linear
            self._smooth(mode)
        self._update_core_and_noise()

    def predict(self, inputs: Tensor) -> Tensor:
        """Mean of y at (M, K) inputs; unseen coordinates by merging the two neighbours."""
        rows = [self._rows(mode, inputs[:, k]) for k, mode in enumerate(self.modes)]
        product = rows[0]
        for row in rows[1:]:
            product = self._times(product, row)
        return product @ self.core

    def _mode(self, column: Tensor) -> _Mode:
        grid, index = torch.unique(column, return_inverse=True)
        order = torch.argsort(index, stable=True)
        entries = torch.split(order, torch.bincount(index).tolist())
        rank, num_entries = self.settings.rank, len(column)
        eye = torch.eye(rank, dtype=torch.float64)
        state_size = self.process.drift.shape[0]
        start = torch.randn(state_size, 1, generator=self.generator, dtype=torch.float64)
        return _Mode(
            grid=grid,
            index=index,
            entries=entries,
            mean=self._uniform(len(grid), rank),
            covariance=eye.repeat(len(grid), 1, 1),
            precision=1e-3 * eye.repeat(num_entries, 1, 1),
            linear=1e-3 * self._uniform(num_entries, rank),
            start=start,
        )

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator, dtype=torch.float64)

    def _times(self, left: Tensor, right: Tensor) -> Tensor:
        """Products of rows: element by element for CP, Kronecker for Tucker."""
        if self.settings.structure == "cp":
            return left * right
        return (left[:, :, None] * right[:, None, :]).flatten(1)

    def _times_second(self, left: Tensor, right: Tensor) -> Tensor:
        if self.settings.structure == "cp":
            return left * right
        size = left.shape[1] * right.shape[1]
        value = left[:, :, None, :, None] * right[:, None, :, None, :]
        return value.reshape(len(left), size, size)

    def _moments(self, modes: list[int]) -> tuple[Tensor, Tensor]:
        """E[z] (N, F) and E[z z'] (N, F, F) of the product of some modes' rows."""
        mean = second = None
        for j in modes:
            row = self.modes[j].mean[self.modes[j].index]
            square = self.modes[j].covariance[self.modes[j].index] + row[:, :, None] * row[:, None]
            if mean is None or second is None:
                mean, second = row, square
            else:
                mean, second = self._times(mean, row), self._times_second(second, square)
        assert mean is not None and second is not None
        return mean, second

    def _fold(self, mean: Tensor, second: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Contract with the core's mean over all modes but k; nothing to do for CP."""
        if self.settings.structure == "cp":
            return mean, second
        rank, num_modes = self.settings.rank, len(self.modes)
        unfolded = self.core.reshape([rank] * num_modes).movedim(k, 0).reshape(rank, -1)
        return mean @ unfolded.T, unfolded @ second @ unfolded.T

    def _smooth(self, mode: _Mode) -> None:
        shrink = torch.eye(self.settings.rank, dtype=torch.float64) / self.settings.prior_variance

        def observation(i: int) -> tuple[Tensor, Tensor]:
            entries = mode.entries[i]
            covariance = torch.linalg.inv(mode.precision[entries].sum(0) + shrink)
            return covariance @ mode.linear[entries].sum(0)[:, None], covariance

        gaps = torch.diff(mode.grid, prepend=mode.grid[:1])
        means, covariances = smooth_loop(self.process, gaps, observation, mode.start)
        mode.smoothed = (means, covariances)
        output = self.process.output
        mode.mean = (output @ means)[..., 0]
        mode.covariance = output @ covariances @ output.T

    def _update_core_and_noise(self) -> None:
        mean, second = self._moments(list(range(len(self.modes))))
        if self.settings.structure == "tucker":
            keep, tau = self.settings.damping_core, self.precision
            self.core_precision = keep * self.core_precision + (1 - keep) * tau * second
            linear = tau * mean * self.targets[:, None]
            self.core_linear = keep * self.core_linear + (1 - keep) * linear
            self.core = torch.linalg.solve(self.core_precision.sum(0), self.core_linear.sum(0))
        fit = mean @ self.core
        square = (second @ self.core) @ self.core
        message = 0.5 * self.targets.square() - self.targets * fit + 0.5 * square
        keep = self.settings.damping_tau
        self.noise_message = keep * self.noise_message + (1 - keep) * message
        self.precision = (1 + len(self.targets) / 2) / (1 + self.noise_message.sum())

    def _rows(self, mode: _Mode, column: Tensor) -> Tensor:
        assert mode.smoothed is not None
        queries, back = torch.unique(column, return_inverse=True)
        rows = [self._row(mode, query) for query in queries]
        return torch.stack(rows)[back]

    def _row(self, mode: _Mode, query: Tensor) -> Tensor:
        """Forward prediction from the left, backward from the right, multiplied as published."""
        assert mode.smoothed is not None
        means, covariances = mode.smoothed
        drift, stationary, output = self.process
        right = int(torch.searchsorted(mode.grid, query))
        if right < len(mode.grid) and mode.grid[right] == query:
            return (output @ means[right])[:, 0]
        sides = []
        for i, sign in ((right - 1, 1.0), (right, -1.0)):
            if 0 <= i < len(mode.grid):
                transition = torch.matrix_exp(drift * (query - mode.grid[i]).abs())
                if sign < 0:  # reverse time: P_inf A' P_inf^-1
                    transition = stationary @ transition.T @ torch.linalg.inv(stationary)
                noise = stationary - transition @ stationary @ transition.T
                covariance = transition @ covariances[i] @ transition.T + noise
                sides.append((transition @ means[i], torch.linalg.inv(covariance)))
        if len(sides) == 1:
            return (output @ sides[0][0])[:, 0]
        total = sides[0][1] + sides[1][1]
        merged = torch.linalg.solve(total, sides[0][1] @ sides[0][0] + sides[1][1] @ sides[1][0])
        return (output @ merged)[:, 0]
