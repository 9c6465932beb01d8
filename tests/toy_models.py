"""Small models with known answers, for the tests of engines."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from probkit.infer import DrawsPosterior, StepInfo
from probkit.linalg.block_tridiagonal import BlockTridiagonalLinearOperator

State = dict[str, Tensor]


class Walk:
    """A sweep that moves towards 1 with random steps: its course depends on every random number."""

    def __init__(self, rate: float = 0.05, delay: float = 0.0) -> None:
        self.rate, self.delay = rate, delay

    def settings(self) -> dict[str, Any]:
        return {"rate": self.rate}

    def initialize(self, generator: torch.Generator) -> State:
        return {"x": torch.randn(3, generator=generator, dtype=torch.float64)}

    def sweep(self, state: State, generator: torch.Generator) -> tuple[State, StepInfo]:
        noise = torch.rand(3, generator=generator, dtype=torch.float64)
        x = state["x"] + self.rate * noise * (1 - state["x"])
        return {"x": x}, StepInfo(objective=-float((x - 1).square().sum()) - 1.0)

    def posterior(self, state: State) -> DrawsPosterior:
        return DrawsPosterior({"x": state["x"].expand(1, 2, 3).clone()})


class NormalGibbs:
    """Mean and precision of normal data, with conjugate conditionals."""

    def __init__(self, y: Tensor) -> None:
        self.y = y

    def initialize(self, generator: torch.Generator) -> State:
        mean = torch.randn((), generator=generator, dtype=torch.float64)
        return {"mean": mean, "precision": torch.ones((), dtype=torch.float64)}

    def gibbs_step(self, state: State, generator: torch.Generator) -> State:
        n = len(self.y)
        precision = 1e-2 + n * state["precision"]
        noise = torch.randn((), generator=generator, dtype=torch.float64)
        mean = state["precision"] * self.y.sum() / precision + noise / precision.sqrt()
        # with prior Gamma(1, 1/2) the conditional is Gamma(1 + n/2, rate/2), a scaled chi-square
        normals = torch.randn(n + 2, generator=generator, dtype=torch.float64)
        rate = 1.0 + (self.y - mean).square().sum()
        return {"mean": mean, "precision": normals.square().sum() / rate}

    def draw(self, state: State) -> State:
        return {"mean": state["mean"], "precision": state["precision"]}


def normal_mean(y: Tensor) -> None:
    """Unknown mean with prior N(0, 2^2), unit noise."""
    mean = pyro.sample("mean", dist.Normal(torch.zeros((), dtype=y.dtype), 2.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def normal_mean_answer(y: Tensor) -> tuple[float, float, float]:
    """Posterior mean, sd and log evidence of ``normal_mean``."""
    precision = 0.25 + len(y)
    covariance = torch.eye(len(y), dtype=y.dtype) + 4.0
    evidence = torch.distributions.MultivariateNormal(torch.zeros_like(y), covariance).log_prob(y)
    return float(y.sum()) / precision, precision**-0.5, float(evidence)


def regression(x: Tensor, y: Tensor) -> None:
    """Bayesian linear regression with correlated covariates allowed; unit noise."""
    zeros = torch.zeros(x.shape[-1], dtype=x.dtype)
    weights = pyro.sample("weights", dist.Normal(zeros, 1.0).to_event(1))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal((x * weights).sum(-1), 1.0), obs=y)


class ModuleGuide(pyro.nn.PyroModule):
    """A guide for ``normal_mean`` with parameters of its own: plain, constrained, and nested."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.scale = pyro.nn.PyroParam(
            torch.tensor(0.5, dtype=torch.float64), constraint=dist.constraints.positive
        )
        self.shift = nn.Linear(1, 1, bias=False, dtype=torch.float64)
        nn.init.zeros_(self.shift.weight)

    def forward(self, y: Tensor) -> None:
        loc = self.loc + self.shift(torch.ones(1, dtype=torch.float64)).squeeze(-1)
        pyro.sample("mean", dist.Normal(loc, self.scale))


def function_guide(y: Tensor) -> None:
    """The same family written with ``pyro.param``."""
    loc = pyro.param("loc", torch.zeros((), dtype=torch.float64))
    scale = pyro.param(
        "scale", torch.tensor(0.5, dtype=torch.float64), constraint=dist.constraints.positive
    )
    pyro.sample("mean", dist.Normal(loc, scale))


def normal_data(count: int = 40) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return 1.5 + torch.randn(count, generator=generator, dtype=torch.float64)


class Chain:
    """A Gaussian random walk seen with noise: a density with a block-tridiagonal curvature."""

    def __init__(self, y: Tensor) -> None:
        self.y = y

    def initial(self, generator: torch.Generator) -> Tensor:
        return torch.randn(len(self.y), generator=generator, dtype=self.y.dtype)

    def value_and_gradient(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        away = flat - self.y
        quadratic = flat @ (self._prior() @ flat) + 4 * away @ away
        return quadratic / 2, self._prior() @ flat + 4 * away

    def curvature(self, flat: Tensor) -> BlockTridiagonalLinearOperator:
        dense = self._prior() + 4 * torch.eye(len(self.y), dtype=self.y.dtype)
        lower = dense.diagonal(-1)
        return BlockTridiagonalLinearOperator(
            dense.diagonal()[:, None, None], lower[:, None, None].contiguous()
        )

    def values(self, flat: Tensor) -> Tensor:
        return torch.stack([self.value_and_gradient(point)[0] for point in flat])

    def sites(self, flat: Tensor) -> dict[str, Tensor]:
        return {"x": flat}

    def _prior(self) -> Tensor:
        size = len(self.y)
        steps = torch.eye(size, dtype=self.y.dtype) - torch.diag(
            torch.ones(size - 1, dtype=self.y.dtype), -1
        )
        return steps.T @ steps
