"""Study: the error of private similarity against epsilon, for every method.

    python models/private_similarity.py --out results     # figures and a report
    python models/private_similarity.py --smoke           # small, under a minute

Left: sums of l1 distances by the paper's noisy trees, by trees made consistent, and by the spectral
release under pure DP and under (epsilon, delta)-DP. Middle: Gaussian kernel means by random waves
and on a grid. Right: means of 1 / (1 + s^2) in 64 dimensions by waves, by waves of records reduced
to 16 dimensions, and by the paper's sum of exponentials, all with as many waves and delta 1e-6. All
under the relation add_remove, each release averaged over several draws of noise.
Backurs et al., ICLR 2024, arXiv 2403.08917.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from probkit.infer.provenance import versions
from probkit.plot import plot_curves
from probkit.privacy import PrivacyAccountant
from probkit.report import write_report
from probkit.similarity import PrivateDistance, PrivateKDE, Sketch

DELTA = 1e-6
BANDWIDTH = 0.2
ADD_REMOVE = {"relation": "add_remove"}
Make = Callable[[], Sketch]

DISTANCES: dict[str, tuple[Make, float | None]] = {
    "tree": (lambda: PrivateDistance(2, method="tree", bounds=(0, 1), **ADD_REMOVE), None),
    "consistent tree": (
        lambda: PrivateDistance(2, method="tree", consistent=True, bounds=(0, 1), **ADD_REMOVE),
        None,
    ),
    "spectral": (lambda: PrivateDistance(2, bounds=(0, 1), **ADD_REMOVE), None),
    "spectral, delta 1e-6": (lambda: PrivateDistance(2, bounds=(0, 1), **ADD_REMOVE), DELTA),
}
KERNELS: dict[str, tuple[Make, float | None]] = {
    "waves": (
        lambda: PrivateKDE(2, bandwidth=BANDWIDTH, num_features=500, **ADD_REMOVE),
        None,
    ),
    "waves, delta 1e-6": (
        lambda: PrivateKDE(2, bandwidth=BANDWIDTH, num_features=4000, **ADD_REMOVE),
        DELTA,
    ),
    "grid": (
        lambda: PrivateKDE(2, bandwidth=BANDWIDTH, method="grid", bounds=(0, 1), **ADD_REMOVE),
        None,
    ),
}
WIDE = 64
SMOOTH: dict[str, tuple[Make, float | None]] = {
    "waves": (lambda: _smooth(), DELTA),
    "waves of reduced records": (lambda: _smooth(projection="jl", reduced_dim=16), DELTA),
    "sum of exponentials": (lambda: _smooth(method="exponentials"), DELTA),
}


def _smooth(**choices: Any) -> Sketch:
    return PrivateKDE(WIDE, "cauchy", bandwidth=1.0, num_features=4000, **choices, **ADD_REMOVE)


def simulate(size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Records in two clusters of the unit square, and 100 points to ask about."""
    generator = torch.Generator().manual_seed(seed)
    middle = torch.tensor([[0.3, 0.35], [0.7, 0.6]], dtype=torch.float64)
    which = torch.randint(0, 2, (size,), generator=generator)
    noise = torch.randn(size, 2, generator=generator, dtype=torch.float64)
    points = torch.rand(100, 2, generator=generator, dtype=torch.float64)
    return (middle[which] + 0.1 * noise).clamp(0, 1), points


def error(
    make: Make,
    delta: float | None,
    epsilon: float,
    records: Tensor,
    points: Tensor,
    exact: Tensor,
    repetitions: int,
) -> float:
    """Root mean square error over points and independent draws of the noise.

    Every repetition builds and releases a sketch of its own: of simulated records. On real ones
    each would spend epsilon again.
    """
    squares = []
    for _ in range(repetitions):
        accountant = PrivacyAccountant(epsilon=epsilon, delta=delta, relation="add_remove")
        release = make().update(records).release(accountant)
        squares.append((release.query(points).value - exact).square().mean())
    return math.sqrt(float(torch.stack(squares).mean()))


def draw(tables: dict[str, dict[str, dict[float, float]]], out: Path) -> dict[str, str]:
    """A figure a similarity, error against epsilon; file names by caption."""
    found = {}
    for number, (title, table) in enumerate(tables.items()):
        path = out / "figures" / f"errors_{number}.png"
        curves = {name: (list(errors.values()),) * 3 for name, errors in table.items()}
        epsilons = list(next(iter(table.values())))
        labels = ("epsilon", "root mean square error")
        plot_curves(epsilons, curves, labels, path, logarithmic=True, log_x=True)
        found[title] = path.relative_to(out).as_posix()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="directory for results; default a new one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="small and quick")
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="private_similarity_"))
    out.mkdir(parents=True, exist_ok=True)

    records, points = simulate(1000 if options.smoke else 20_000, options.seed)
    repetitions = 2 if options.smoke else 10
    budgets = (0.3, 3.0) if options.smoke else (0.1, 0.3, 1.0, 3.0)
    squared = torch.cdist(points, records).square() / BANDWIDTH**2
    # the same clusters turned into 64 dimensions, with noise of length 0.8 around them
    noise = torch.Generator().manual_seed(options.seed + 1)
    turn = torch.randn(2, WIDE, generator=noise, dtype=torch.float64)
    wide = [2 * part @ turn / math.sqrt(WIDE) for part in (records, points)]
    wide = [
        part + 0.1 * torch.randn(part.shape, generator=noise, dtype=part.dtype) for part in wide
    ]
    distances = torch.cdist(wide[1], wide[0]).square()
    plane = (records, points)
    jobs = {
        "l1 distance, sum": (DISTANCES, plane, torch.cdist(points, records, p=1).sum(1)),
        "Gaussian kernel, mean": (KERNELS, plane, torch.exp(-squared).mean(1)),
        "1 / (1 + s^2), 64 dimensions": (SMOOTH, wide, (1 / (1 + distances)).mean(1)),
    }
    tables: dict[str, dict[str, dict[float, float]]] = {}
    for title, (methods, data, exact) in jobs.items():
        tables[title] = {}
        for name, (make, delta) in methods.items():
            found = {e: error(make, delta, e, *data, exact, repetitions) for e in budgets}
            tables[title][name] = found
            print(f"{title}, {name}: " + ", ".join(f"{e:g}: {v:.3g}" for e, v in found.items()))
    record = {
        "title": "Error of private similarity against epsilon",
        "data": {"records": len(records), "relation": "add_remove"},
        "scores": tables,
        "figures": draw(tables, out),
        "versions": versions(),
    }
    print(f"report: {write_report(out, record)}")


if __name__ == "__main__":
    main()
