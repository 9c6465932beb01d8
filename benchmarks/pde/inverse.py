"""P14: an unknown coefficient from 25 noisy values of the solution, truth drawn from the prior.

u'' + theta u = f,  theta = 400,  25 values of u (sd .02), f on 100 points to 0.1
"""

from __future__ import annotations

from collections.abc import Iterator

import pyro.distributions as dist
import torch

from benchmarks.frame import Context, Line, row
from benchmarks.pde.noise import Mixture
from probkit.infer import NUTS
from probkit.pde import PDE, Box, InverseSolver, Problem, Term, Unknown
from probkit.pde.harmonics import Harmonics

_THETA, _NOISE, _TOLERANCE = 400.0, 0.02, 0.1
_SPECTRUM = Mixture((1.0, 0.5), (3.0, 1.0), (4.0, 4.0))
_BAND = 8.0
_SOLVER = InverseSolver(prior=_SPECTRUM, band_limit=_BAND)


@row("P14", "an unknown coefficient and its uncertainty")
def coefficient(context: Context) -> Iterator[Line]:
    repeats = context.size(40, 2)
    for key, noise in (("", _NOISE), ("learned_", _unknown("noise", dist.LogNormal, -4.0, 2.0))):
        means, sds, inside, noises = [], [], [], []
        for seed in range(repeats):
            found = _SOLVER.fit(_problem(seed, noise), seed=seed).coefficients()
            means.append(found["theta"]["mean"])
            sds.append(found["theta"]["sd"])
            inside.append(found["theta"]["low"] < _THETA < found["theta"]["high"])
            noises.append(found.get("noise", {"mean": _NOISE})["mean"])
        what = f"noise {'learned' if key else 'known'}, {repeats} repeats"
        gap = abs(sum(means) / repeats - _THETA)
        spread = float(torch.tensor(means).std())
        yield Line(f"{key}mean", f"{what}: mean of posterior means, off by", gap)
        yield Line(f"{key}coverage", f"{what}: coverage of 95 %", sum(inside) / repeats)
        told = f"{what}: mean posterior sd (baseline: spread of the means)"
        yield Line("", told, sum(sds) / repeats, spread)
        if key:
            yield Line("", f"{what}: mean noise over the true one", sum(noises) / repeats / _NOISE)
    ratios = []
    for seed in range(context.size(5, 1)):
        problem = _problem(seed, _NOISE)
        engine = NUTS(num_samples=400, num_warmup=200, num_chains=2)
        sampled = InverseSolver(engine, prior=_SPECTRUM, band_limit=_BAND).fit(problem, seed=seed)
        rough = _SOLVER.fit(problem, seed=seed)
        sd = [s.coefficients()["theta"]["sd"] for s in (sampled, rough)]
        ratios.append(sd[0] / sd[1])
    worst = max(ratios, key=lambda ratio: abs(ratio - 1))
    yield Line("nuts", f"sd by NUTS over that by Laplace, worst of {len(ratios)}", worst)


def _problem(seed: int, noise: object) -> Problem:
    generator = torch.Generator().manual_seed(seed)
    side = Harmonics(0.0, 1.0, 2.0, 16)
    scale = _SPECTRUM.scales(side).sqrt()
    weights = scale * torch.randn(side.num_features, generator=generator, dtype=torch.float64)
    box = Box([(0.0, 1.0)], 100)
    x = box.points()[:, 0]
    f = (side.rows(x, 2) + _THETA * side.rows(x)) @ weights
    f = f + _TOLERANCE * torch.randn(100, generator=generator, dtype=torch.float64)
    at = torch.rand(25, generator=generator, dtype=torch.float64)
    y = side.rows(at) @ weights
    y = y + _NOISE * torch.randn(25, generator=generator, dtype=torch.float64)
    theta = _unknown("theta", dist.Uniform, 100.0, 700.0)
    pde = PDE([Term(1.0, (2,)), Term(theta, (0,))])
    return Problem(pde, box, (), f, noise=_TOLERANCE, data=(at, y, noise))


def _unknown(name: str, law: type, *parameters: float) -> Unknown:
    return Unknown(name, law(*(torch.tensor(p, dtype=torch.float64) for p in parameters)))
