"""P23: the settings behind P11, P17, P18 and P20 on data that had no part in choosing them.

Other draws and another spectrum with more noise; other speeds, viscosities and numbers of cycles;
other layers, wider, narrower and elsewhere; other windows, and another map. Targets are those of
the rows that are repeated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.frame import Context, Line, row
from benchmarks.pde.evolution import Evolution, run_evolutions
from benchmarks.pde.lines import against_chebyshev
from benchmarks.pde.noise import LINE, Mixture, calibration
from benchmarks.pde.terrain import heights, infill
from probkit.pde import PDE, Term

_OTHER = Mixture((0.6, 1.0), (12.0, 3.0), (3.0, 12.0))
_LAYERS = {
    "tanh(60(x - .37))": lambda x: torch.tanh(60 * (x - 0.37)),
    "tanh(25(x - .62))": lambda x: torch.tanh(25 * (x - 0.62)),
    "a Lorentzian of width 1/30": lambda x: 1 / (1 + (30 * (x - 0.41)).square()),
    "tanh(40(x - .3)) + sin 40x": lambda x: torch.tanh(40 * (x - 0.3)) + torch.sin(40 * x),
}


@row("P23", "fresh data")
def fresh(context: Context) -> Iterator[Line]:
    draws = context.size(60, 3)
    yield from calibration(range(1000, 1000 + draws), LINE, label="seeds_")
    yield from calibration(range(2000, 2000 + draws), _OTHER, share=0.05, label="spectrum_")
    yield from run_evolutions(_evolutions(), context.size(200, 90))
    for name, exact in _LAYERS.items():
        ours, other = against_chebyshev(exact)
        yield Line("layer", f"{name}, N = 300: error (baseline: Chebyshev)", ours, other)
    surface = heights("jacksboro_fault_dem.npz", "elevation")
    rmse, cubic, coverage = infill(surface, context.size(24, 2), seed=1)
    yield Line("rmse", "terrain, other windows: RMSE in m (baseline: cubic)", rmse, cubic)
    yield Line("coverage", "terrain, other windows: coverage of 90 %", coverage)
    surface = heights("topobathy.npz", "topo")
    rmse, cubic, coverage = infill(surface, context.size(12, 2), seed=0)
    yield Line("", "sea floor: RMSE in m (baseline: cubic)", rmse, cubic)
    yield Line("", "sea floor: coverage of 90 %", coverage)


def _evolutions() -> dict[str, Evolution]:
    k, speed, nu = 25 * math.pi, 0.6, 0.02
    w = 23 * math.pi

    def heat(x: Tensor) -> Tensor:
        return torch.exp(-2 * x[:, 1]) * torch.cos(k * x[:, 0]) + torch.sin(w * x[:, 1]) * (
            1 + x[:, 0] ** 2
        )

    def heat_source(x: Tensor) -> Tensor:
        falling = torch.exp(-2 * x[:, 1]) * torch.cos(k * x[:, 0])
        rest = w * torch.cos(w * x[:, 1]) * (1 + x[:, 0] ** 2) - 2 * nu * torch.sin(w * x[:, 1])
        return (nu * k**2 - 2) * falling + rest

    def wave(x: Tensor) -> Tensor:
        standing = torch.cos(k * x[:, 0]) * torch.sin(speed * k * x[:, 1])
        return standing + torch.exp(x[:, 0] - x[:, 1])

    def burgers(x: Tensor) -> Tensor:
        return 0.3 * torch.cos(k * x[:, 0] - w * x[:, 1]) - 0.5 * x[:, 0]

    def burgers_source(x: Tensor) -> Tensor:
        phase = k * x[:, 0] - w * x[:, 1]
        slope = -0.3 * k * torch.sin(phase) - 0.5
        bend = -0.3 * k**2 * torch.cos(phase)
        return 0.3 * w * torch.sin(phase) - nu * bend + burgers(x) * slope

    def kink(x: Tensor) -> Tensor:
        return 0.7 * torch.sin(k * x[:, 0]) * torch.cos(speed * k * x[:, 1]) - x[:, 0] * x[:, 1]

    string = [Term(1.0, (0, 2)), Term(-(speed**2), (2, 0))]
    diffusion = [Term(1.0, (0, 1)), Term(-nu, (2, 0))]
    return {
        "heat": Evolution(PDE(diffusion), heat, heat_source),
        "wave": Evolution(
            PDE(string),
            wave,
            lambda x: (1 - speed**2) * torch.exp(x[:, 0] - x[:, 1]),
            lambda x: speed * k * torch.cos(k * x[:, 0]) - torch.exp(x[:, 0]),
        ),
        "burgers": Evolution(
            PDE(diffusion, lambda u, slope: u * slope, [(0, 0), (1, 0)]), burgers, burgers_source
        ),
        "sine_gordon": Evolution(
            PDE(string, torch.sin), kink, lambda x: torch.sin(kink(x)), lambda x: -x[:, 0]
        ),
    }
