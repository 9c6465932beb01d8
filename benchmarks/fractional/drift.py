"""R16: the double well. Guides at equal CPU, and the drift learned as a network from one path."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import NamedTuple

import torch
from pyro.nn import PyroModule
from torch import Tensor

from benchmarks.frame import Context, Line, row
from probkit.fractional import (
    ControlGuide,
    FractionalSDE,
    MarkovGaussianGuide,
    NeuralDrift,
    PathMarginal,
)
from probkit.fractional.increments import whiten, whitening
from probkit.infer import SVI

F64 = torch.float64
WIDTH = 0.5
NUM_PATHS = 400


class Case(NamedTuple):
    """A data set: T = .01 num_steps, every tenth point observed with noise of sd .1."""

    hurst: float
    num_steps: int
    path: Tensor
    y: Tensor

    def sde(self, drift: object, num_paths: int = 16) -> FractionalSDE:
        return equation(drift, self.hurst, self.num_steps, self.y.shape[1], num_paths)


def equation(
    drift: object, hurst: float, num_steps: int, dim: int = 1, num_paths: int = 16
) -> FractionalSDE:
    return FractionalSDE(
        drift,  # type: ignore[arg-type]
        WIDTH,
        hurst,
        dt=0.01,
        num_steps=num_steps,
        observed=torch.arange(10, num_steps + 1, 10),
        noise=0.1,
        initial=(0.0, 1.0),
        dim=dim,
        num_paths=num_paths,
    )


def well(t: Tensor, x: Tensor) -> Tensor:
    return x - x**3


def simulate(hurst: float, num_steps: int, seed: int, dim: int = 1) -> Case:
    path, y = equation(well, hurst, num_steps, dim).simulate(seed=seed)
    return Case(hurst, num_steps, path.x, y)


class PublishedControl(torch.nn.Module):
    """``u(t, x, y)`` by a network that also sees the observations around t, two layers of 64."""

    def __init__(self, case: Case, size: int) -> None:
        super().__init__()
        n = torch.arange(case.num_steps + 1)
        ahead = torch.div(n, 10, rounding_mode="floor").clamp_max(len(case.y) - 1)
        gap = 0.1 - 0.01 * (n % 10).to(F64)
        context = torch.stack([case.y[(ahead - 1).clamp_min(0), 0], case.y[ahead, 0], gap], 1)
        self.register_buffer("context", context)
        last = torch.nn.Linear(64, 1, dtype=F64)
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.zeros_(last.bias)
        self.net = torch.nn.Sequential(
            *(torch.nn.Linear(size + 4, 64, dtype=F64), torch.nn.Tanh()),
            *(torch.nn.Linear(64, 64, dtype=F64), torch.nn.Tanh(), last),
        )

    def forward(self, t: Tensor, x: Tensor, y: Tensor) -> Tensor:
        seen = self.context[int(torch.round(t / 0.01))].expand(len(x), 3)
        found: Tensor = self.net(torch.cat([x, y.flatten(1), seen], -1))
        return found


class PlainDrift(torch.nn.Module):
    """The network of the published scheme, without priors."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            *(torch.nn.Linear(1, 48, dtype=F64), torch.nn.Tanh()),
            torch.nn.Linear(48, 1, dtype=F64),
        )

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        found: Tensor = self.net(x)
        return found


def published_elbo(case: Case, drift: object, seconds: float) -> float:
    """ELBO of the network control, trained for that many CPU seconds with the drift."""
    torch.manual_seed(0)
    sde = case.sde(drift)
    network = PublishedControl(case, len(sde.matrices.decay))
    guide = ControlGuide(sde, case.y, network=network, gain=False)
    engine = SVI(
        steps=100_000,
        learning_rate=3e-3,
        decay=1.0,
        clip_norm=100.0,
        guide=lambda y: None,
        max_seconds=seconds,
        compile="off",
        num_diagnostic_samples=0,
        num_posterior_samples=1,
    )
    engine.fit(guide.model, case.y, seed=0)
    with torch.no_grad():
        return float(guide.sample(NUM_PATHS, seed=1).elbo)


def learn(case: Case, steps: int) -> FractionalSDE:
    """The equation with the posterior mode of a network for its drift."""
    dim = case.y.shape[1]
    drift = NeuralDrift()
    sde = case.sde(drift if dim == 1 else Shared(drift))
    torch.manual_seed(0)
    marginal = PathMarginal(sde, case.y, num_paths=8, refresh=20)
    engine = SVI(steps=steps, learning_rate=0.1, guide="AutoDelta", window=20, compile="off")
    result = engine.fit(marginal, case.y, seed=0)
    return marginal.sde_at(result.posterior.mean())


class Shared(PyroModule):
    """One drift for coordinates that are paths of their own."""

    def __init__(self, drift: NeuralDrift) -> None:
        super().__init__()
        self.drift = drift

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        found: Tensor = self.drift(t, x[..., None])
        return found[..., 0]


def drift_error(case: Case, drift: object) -> float:
    """RMSE over the visited states between the 5 % and 95 % quantiles of the path."""
    x = case.path.flatten()
    inside = x[(x >= x.quantile(0.05)) & (x <= x.quantile(0.95))]
    zero = torch.zeros((), dtype=F64)
    with torch.no_grad():
        found = drift(zero, inside[:, None])[:, 0]  # type: ignore[operator]
    return float((found - well(zero, inside)).square().mean().sqrt())


def oracle_error(case: Case) -> float:
    """Of the likeliest cubic where the path is seen without noise at every step."""
    sde = case.sde(well)
    x = case.path[:, 0]
    filter = whitening(sde.process, sde.dt, sde.num_steps)
    powers = [x[:-1] ** k * sde.dt / WIDTH for k in range(4)]
    white = whiten(torch.stack([x.diff() / WIDTH, *powers], 1), filter)
    found = torch.linalg.lstsq(white[:, 1:], white[:, :1]).solution[:, 0]
    return drift_error(case, lambda t, z: sum(found[k] * z**k for k in range(4)))


@row("R16", "double well: guides at equal CPU; drift learned as a network")
def double_well(context: Context) -> Iterator[Line]:
    num_steps, steps = context.size(2000, 100), context.size(100, 3)
    for hurst in (0.7, 0.3):
        cases = [simulate(hurst, num_steps, seed) for seed in range(context.size(5, 1))]
        first, errors = cases[0], []
        for case in cases:
            clock = time.process_time()
            sde = learn(case, steps)
            errors.append(drift_error(case, sde.drift))
            if case is first:
                learned = _elbo(first, sde)
                seconds = time.process_time() - clock
        known = _elbo(first, first.sde(well))
        yield Line(f"gap_{hurst}", f"IWAE - ELBO, drift known, H = {hurst}", known[1] - known[0])
        gap = learned[1] - learned[0]
        yield Line(f"gap_learned_{hurst}", f"IWAE - ELBO, drift learned, H = {hurst}", gap)
        theirs = published_elbo(first, well, seconds)
        yield Line(
            f"known_{hurst}", f"ELBO over the network control's, H = {hurst}", known[0] - theirs
        )
        theirs = published_elbo(first, PlainDrift(), seconds)
        what = f"the same, drift learned, {seconds:.0f} CPU s each"
        yield Line(f"learned_{hurst}", what, learned[0] - theirs)
        with torch.no_grad():
            gain = float(ControlGuide(first.sde(well), first.y).sample(NUM_PATHS, seed=1).elbo)
        yield Line(f"gain_{hurst}", "ELBO over the closed-form control's", known[0] - gain)
        yield Line(
            f"drift_{hurst}",
            f"RMSE of the drift, H = {hurst}, median of {len(cases)}; baseline: path without noise",
            statistics.median(errors),
            statistics.median(oracle_error(case) for case in cases),
        )
        four = simulate(hurst, num_steps, 100, dim=4)
        drift = learn(four, steps).drift
        assert isinstance(drift, Shared)
        error = drift_error(four, drift.drift)
        yield Line(f"four_{hurst}", f"RMSE of the drift from four paths, H = {hurst}", error)


def _elbo(case: Case, sde: FractionalSDE) -> tuple[float, float]:
    """ELBO of the default guide, and its importance-weighted bound."""
    with torch.no_grad():
        drawn = MarkovGaussianGuide(sde, case.y).sample(1000, seed=1)
    return float(drawn.elbo), float(drawn.log_evidence)
