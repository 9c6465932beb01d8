"""Small sketches of every design, and what they must answer without noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from probkit.similarity import PrivateDistance, PrivateKDE, Sketch
from probkit.similarity.spectral_laws import KERNELS, similarity


class Case(NamedTuple):
    make: Callable[..., Sketch]
    exact: Callable[[Tensor, Tensor], Tensor]
    """sums at points (Q, d) over records (N, d)"""
    draw: Callable[[int, torch.Generator], Tensor]
    tolerance: float
    """error a record of the structure itself, without noise"""


def box(dim: int) -> Callable[[int, torch.Generator], Tensor]:
    return lambda n, g: torch.rand(n, dim, generator=g, dtype=torch.float64) * 3 - 1


def ball(dim: int) -> Callable[[int, torch.Generator], Tensor]:
    def draw(n: int, g: torch.Generator) -> Tensor:
        x = torch.randn(n, dim, generator=g, dtype=torch.float64)
        length = torch.rand(n, 1, generator=g, dtype=torch.float64)
        return 2 * length * x / torch.linalg.vector_norm(x, dim=1, keepdim=True)

    return draw


def powers(p: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, y: (x[None] - y[:, None]).abs().pow(p).sum((1, 2))


def kernel(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, y: similarity(name, x, y, 0.5).sum(-1)


BOUNDS = (-1.0, 2.0)
CASES: dict[str, Case] = {
    "l1": Case(
        lambda **k: PrivateDistance(3, bounds=BOUNDS, num_cells=256, **k), powers(1), box(3), 4e-3
    ),
    "lp 1.5": Case(
        lambda **k: PrivateDistance(2, "lp", power=1.5, bounds=BOUNDS, num_cells=256, **k),
        powers(1.5),
        box(2),
        4e-3,
    ),
    "lp 2": Case(
        lambda **k: PrivateDistance(2, "lp", power=2, bounds=BOUNDS, num_cells=256, **k),
        powers(2),
        box(2),
        1e-3,
    ),
    "tree": Case(
        lambda **k: PrivateDistance(2, method="tree", bounds=BOUNDS, height=9, alpha=0.01, **k),
        powers(1),
        box(2),
        2e-2,
    ),
    "consistent tree": Case(
        lambda **k: PrivateDistance(
            2, method="tree", bounds=BOUNDS, height=9, consistent=True, **k
        ),
        powers(1),
        box(2),
        4e-3,
    ),
    "l2": Case(
        lambda **k: PrivateDistance(3, "l2", radius=2.0, num_directions=2000, num_cells=64, **k),
        lambda x, y: torch.cdist(y, x).sum(-1),
        ball(3),
        6e-2,
    ),
    "l2sq": Case(
        lambda **k: PrivateDistance(5, "l2sq", radius=2.0, **k),
        lambda x, y: torch.cdist(y, x).square().sum(-1),
        ball(5),
        2e-6,
    ),
    "grid 1d": Case(
        lambda **k: PrivateKDE(1, "cauchy", bandwidth=0.5, method="grid", bounds=BOUNDS, **k),
        kernel("cauchy"),
        box(1),
        2e-3,
    ),
    "grid 2d": Case(
        lambda **k: PrivateKDE(2, bandwidth=0.5, method="grid", bounds=BOUNDS, **k),
        kernel("gaussian"),
        box(2),
        3e-3,
    ),
    "grid 3d": Case(
        lambda **k: PrivateKDE(3, bandwidth=0.5, method="grid", bounds=BOUNDS, spacing=1.0, **k),
        kernel("gaussian"),
        box(3),
        2e-2,
    ),
    "jl": Case(
        lambda **k: PrivateKDE(
            30, bandwidth=5.0, num_features=4000, projection="jl", reduced_dim=20, seed=3, **k
        ),
        lambda x, y: similarity("gaussian", x, y, 5.0).sum(-1),
        box(30),
        0.1,
    ),
    "exponentials": Case(
        lambda **k: PrivateKDE(
            4, "inverse", bandwidth=0.5, method="exponentials", num_features=2500, seed=3, **k
        ),
        kernel("inverse"),
        box(4),
        8e-2,
    ),
    **{
        name: Case(
            lambda name=name, **k: PrivateKDE(
                4, name, bandwidth=0.5, num_features=4000, seed=3, **k
            ),
            kernel(name),
            box(4),
            4e-2,
        )
        for name in KERNELS
    },
}


def without_noise(sketch: Sketch):
    """A decoder of the exact statistic: what an infinite budget would release."""
    design, count = sketch.design, sketch.count
    statistic = design.statistic(sketch.state, count, sketch.relation).to(torch.float64)
    public = count if sketch.relation == "replace" else None
    return design.decoder(statistic, torch.zeros_like(statistic), public)
