"""P11, P12: error bars of solutions from noisy sources, truth drawn from the prior."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.frame import Context, Line, row
from probkit.pde import PDE, Box, Condition, GPSolver, PDESolution, Problem, Term
from probkit.pde.harmonics import Harmonics

__all__ = ["LINE", "Mixture", "calibration"]

_NORMAL_95 = 1.959964


@dataclass(frozen=True)
class Mixture:
    """A Gaussian-mixture spectrum: sum_q w_q exp(-r_q d^2) cos(2 pi m_q d)."""

    weights: tuple[float, ...]
    centers: tuple[float, ...]
    rates: tuple[float, ...]

    def spectral_density(self, frequency: Tensor) -> Tensor:
        total = torch.zeros_like(frequency)
        for w, m, r in zip(self.weights, self.centers, self.rates, strict=True):
            peaks = [torch.exp(-(math.pi**2) * (frequency + s * m).square() / r) for s in (1, -1)]
            total = total + w * math.sqrt(math.pi / r) * (peaks[0] + peaks[1]) / 2
        return total

    def scales(self, side: Harmonics) -> Tensor:
        found = 2 * self.spectral_density(side.frequencies()) / side.period
        return torch.cat([found[:1] / 2, found[1:]])


LINE = Mixture(
    (1.0, math.exp(-1.5), math.exp(-1.0)), (30 / math.tau, 60 / math.tau, 0.5), (math.exp(2.0),) * 3
)
_SQUARE = Mixture((0.7, 0.3), (8.0, 0.0), (6.0, 6.0))
_LAPLACE = PDE([Term(1.0, (2, 0)), Term(1.0, (0, 2))])


@row("P11", "error bars on a line, 2 % noise")
def line(context: Context) -> Iterator[Line]:
    yield from calibration(range(context.size(60, 3)), LINE)


def calibration(
    seeds: range, spectrum: Mixture, *, share: float = 0.02, label: str = ""
) -> Iterator[Line]:
    """Coverage and squared scores with known and with learned hyper-parameters.

    Args:
        seeds: of the draws.
        spectrum: that the truth is drawn from.
        share: noise over the source's spread.
        label: before the keys of the lines.
    """
    for key in ("known", "learned"):
        inside, square = [], []
        for seed in seeds:
            problem, at, truth = _line_problem(seed, spectrum, share)
            solver = GPSolver(prior=spectrum, band_limit=40.0) if key == "known" else GPSolver()
            z = _scores(solver, problem, at, truth)
            inside.append(float((z.abs() < _NORMAL_95).double().mean()))
            square.append(float(z.square().mean()))
        what = f"{key} hyper-parameters, {len(seeds)} draws"
        yield Line(f"{label}{key}", f"{what}: coverage of 95 % bands", sum(inside) / len(seeds))
        yield Line(f"{label}{key}_z2", f"{what}: mean squared score", sum(square) / len(seeds))


@row("P12", "error bars on a square, 5 % noise")
def square(context: Context) -> Iterator[Line]:
    scores = []
    for num in (60, 100, 200):
        for seed in range(context.size(25, 2)):
            problem, at, truth = _square_problem(num, seed)
            solver = GPSolver(prior=_SQUARE, band_limit=16.0)
            scores.append(_scores(solver, problem, at, truth))
    inside = torch.stack([(z.abs() < _NORMAL_95).double().mean() for z in scores])
    square = torch.stack([z.square().mean() for z in scores])
    what = f"{len(scores)} draws over 60^2, 100^2, 200^2"
    yield Line("coverage", f"{what}: coverage of 95 % bands", float(inside.mean()))
    yield Line("z2", f"{what}: mean squared score", float(square.mean()))
    solution, at, mean, sd = _against_dense()
    gap = float((solution.mean(at) - mean).norm() / mean.norm())
    yield Line("dense", "20^2: mean against dense conditioning, relative", gap)
    draws = solution.sample(at, 20000, seed=1).std(0)
    found = solution.sd(at)
    yield Line("", "20^2: sd against dense conditioning", float((found / sd - 1).abs().max()))
    worst = float((draws / found - 1).abs().max())
    yield Line("draws", "20^2: sd of draws against the closed form, relative", worst)


def _scores(solver: GPSolver, problem: Problem, at: Tensor, truth: Tensor) -> Tensor:
    solution = solver.fit(problem)
    found = solution.result.predict(at)
    return (found["mean"] - truth) / found["sd"]


def _line_problem(seed: int, spectrum: Mixture, share: float) -> tuple[Problem, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    side = Harmonics(0.0, 1.0, 2.5, 100)
    scale = spectrum.scales(side).sqrt()
    weights = scale * torch.randn(side.num_features, generator=generator, dtype=torch.float64)
    box = Box([(0.0, 1.0)], 300)
    x = box.points()[:, 0]
    f = side.rows(x, 2) @ weights
    sd = share * float(f.std())
    noisy = f + sd * torch.randn(300, generator=generator, dtype=torch.float64)
    ends = side.rows(x[[0, -1]]) @ weights
    known = [Condition.dirichlet((0, s), float(ends[s])) for s in (0, 1)]
    at = torch.linspace(0, 1, 101, dtype=torch.float64)[1:-1]
    pde = PDE([Term(1.0, (2,))])
    return Problem(pde, box, known, noisy, noise=sd), at[:, None], side.rows(at) @ weights


def _square_problem(num: int, seed: int) -> tuple[Problem, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    side = Harmonics(0.0, 1.0, 2.0, 32)
    scale = _SQUARE.scales(side).sqrt()
    weights = torch.randn(
        side.num_features, side.num_features, generator=generator, dtype=torch.float64
    )
    weights = scale[:, None] * weights * scale
    box = Box([(0.0, 1.0)] * 2, num)
    x = box.axes()[0]
    values, second = side.rows(x), side.rows(x, 2)
    u = values @ weights @ values.mT
    f = second @ weights @ values.mT + values @ weights @ second.mT
    sd = 0.05 * float(f.std())
    noisy = f + sd * torch.randn(f.shape, generator=generator, dtype=torch.float64)
    data = {(0, 0): u[0], (0, 1): u[-1], (1, 0): u[:, 0], (1, 1): u[:, -1]}
    known = [Condition.dirichlet(face, value, noise=1e-3) for face, value in data.items()]
    place = torch.linspace(0, num - 1, 15).long()[1:-1]
    at = torch.cartesian_prod(x[place], x[place])
    return Problem(_LAPLACE, box, known, noisy, noise=sd), at, u[place][:, place].flatten()


def _against_dense() -> tuple[PDESolution, Tensor, Tensor, Tensor]:
    """The weight-space answer on 20 x 20 points and that of conditioning on a dense Gram matrix."""
    problem, at, _ = _square_problem(20, 0)
    solution = GPSolver(prior=_SQUARE, band_limit=16.0).fit(problem)
    side = Harmonics(0.0, 1.0, 2.0, 32)
    scale = _SQUARE.scales(side)
    prior = (scale[:, None] * scale).flatten()

    def rows(x: Tensor, orders: tuple[int, int]) -> Tensor:
        first, second = side.rows(x[:, 0], orders[0]), side.rows(x[:, 1], orders[1])
        return (first[:, :, None] * second[:, None]).flatten(1)

    box = problem.domain
    assert isinstance(box, Box)
    x = box.points()
    parts = [rows(x, (2, 0)) + rows(x, (0, 2))]
    targets = [problem.source.flatten()]
    noise = [torch.full((len(x),), problem.noise**2, dtype=torch.float64)]
    for condition in problem.conditions:
        assert isinstance(condition.where, tuple)
        face = box.face(*condition.where)
        parts.append(rows(face, (0, 0)))
        targets.append(condition.value)
        noise.append(torch.full((len(face),), condition.noise**2, dtype=torch.float64))
    a, y = torch.cat(parts), torch.cat(targets)
    gram = (a * prior) @ a.mT + torch.cat(noise).diag()
    cross = (rows(at, (0, 0)) * prior) @ a.mT
    gain = torch.linalg.solve(gram, cross.mT).mT
    variance = (rows(at, (0, 0)).square() * prior).sum(1) - (gain * cross).sum(1)
    return solution, at, gain @ y, variance.sqrt()
