"""P10: harmonic features against the kernels that they stand for."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.frame import Context, Line, row
from benchmarks.pde.noise import Mixture
from probkit.pde.harmonics import Harmonics

_LENGTH = 2 * math.pi
_MIXTURE = Mixture((1.0, 0.5), (3.0, 0.0), (0.5, 2.0))


@row("P10", "features and their derivatives against kernels")
def features(context: Context) -> Iterator[Line]:
    slowest = min(_MIXTURE.rates)
    extension = 1 + math.sqrt(math.log(sum(_MIXTURE.weights) / 1e-14) / slowest) / _LENGTH
    reach = max(_MIXTURE.centers) + 3 * math.sqrt(max(_MIXTURE.rates))
    side = Harmonics(0.0, _LENGTH, extension * _LENGTH, math.ceil(reach * extension * _LENGTH))
    scale = _MIXTURE.scales(side)
    x = torch.linspace(0, _LENGTH, 60, dtype=torch.float64)
    gap = (x[:, None] - x).requires_grad_(True)
    exact = _gaussian(gap)
    found = (side.rows(x) * scale) @ side.rows(x).mT
    worst = float((found - exact).detach().abs().max()) / sum(_MIXTURE.weights)
    yield Line("features", "Gaussian mixture: largest difference over k(0)", worst)
    derivatives = [exact]
    for _ in range(4):
        derivatives.append(torch.autograd.grad(derivatives[-1].sum(), gap, create_graph=True)[0])
    worst = 0.0
    for a in range(3):
        for b in range(3):
            wanted = (-1) ** b * derivatives[a + b].detach()
            found = (side.rows(x, a) * scale) @ side.rows(x, b).mT
            worst = max(worst, float((found - wanted).abs().max() / wanted.abs().max()))
    yield Line("derivatives", "derivatives up to (2, 2) against autograd, relative", worst)
    yield Line("student", "Student-t (Matern 5/2), f_max = 20 / rho: over k(0)", _student(x))


def _gaussian(gap: Tensor) -> Tensor:
    parts = [
        w * torch.exp(-r * gap.square()) * torch.cos(2 * math.pi * m * gap)
        for w, m, r in zip(_MIXTURE.weights, _MIXTURE.centers, _MIXTURE.rates, strict=True)
    ]
    return torch.stack(parts).sum(0)


def _student(x: Tensor) -> float:
    rho, center = 0.5, 3.0
    rate = math.sqrt(5) / rho
    # the kernel must have died out over the extension, as for the Gaussian mixture
    extension = 1 + 40 / rate / _LENGTH
    reach = center + 20 / rho
    side = Harmonics(0.0, _LENGTH, extension * _LENGTH, math.ceil(reach * extension * _LENGTH))

    def density(f: Tensor) -> Tensor:
        return 16 / 3 * rate**5 / (rate**2 + (2 * math.pi * f).square()) ** 3

    f = side.frequencies()
    scale = (density(f - center) + density(f + center)) / side.period
    scale[0] /= 2
    gap = (x[:, None] - x).abs()
    matern = (1 + rate * gap + (rate * gap).square() / 3) * torch.exp(-rate * gap)
    exact = matern * torch.cos(2 * math.pi * center * gap)
    found = (side.rows(x) * scale) @ side.rows(x).mT
    return float((found - exact).abs().max())
