"""Study: how rough is volatility? The Hurst index with and without observation noise.

    python models/hurst_volatility.py --out results     # S&P 500, 1999-2018, and the VIX
    python models/hurst_volatility.py --smoke           # the last 300 days, in seconds

The volatility of a day is estimated from its four prices (Garman & Klass, 1980), so that its
logarithm is the process and an error of estimation. A model without that error puts it into the
process, which then looks rougher than it is. VIX is a price, read off the market with hardly any
error. The data come with the package arch. Every series is studied as by ``probkit fractional
hurst``; this study puts the models side by side, and simulates what an error does.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from probkit.fractional import HurstModel
from probkit.fractional.study import HurstStudy, load_series
from probkit.infer.provenance import versions
from probkit.plot import plot_curves
from probkit.report import write_report
from probkit.statespace.fractional_noise import sample_fgn

SERIES = {"sp500_volatility": "S&P 500 log volatility", "vix": "log VIX"}
LEVELS = (0.05, 0.5, 0.95)
KNOWN = 0.15


def posteriors(y: Tensor, times: Tensor, smoke: bool, seed: int) -> dict[str, HurstModel]:
    """The same series under both models."""
    size: dict[str, Any] = {"grid_size": 21, "num_samples": 200} if smoke else {}
    return {
        name: HurstModel("levels", noise=noise, seed=seed, **size).fit(y, times)
        for name, noise in (("with noise", True), ("without noise", False))
    }


def moments(model: HurstModel) -> dict[str, float]:
    """What is reported of a fit."""
    posterior = model.result_.posterior
    low, middle, high = (float(v) for v in posterior.quantile(LEVELS)["hurst"])
    found = {"H": middle, "5 %": low, "95 %": high}
    if "noise" in posterior.mean():
        found["noise sd"] = float(posterior.mean()["noise"])
    assert model.grid_ is not None
    return {**found, "log evidence": float(model.grid_.log_evidence)}


def simulated(smoke: bool, seed: int) -> dict[str, dict[str, float]]:
    """A path of H = .15 with an error as large as its daily change: the answer is known."""
    size = 300 if smoke else 2000
    path = sample_fgn(KNOWN, size, 1, seed=seed)[0].cumsum(0)
    error = torch.randn(size, generator=torch.Generator().manual_seed(seed + 1), dtype=path.dtype)
    times = torch.arange(size, dtype=path.dtype)
    found = posteriors(path + error, times, smoke, seed)
    return {name: {**moments(model), "truth": KNOWN} for name, model in found.items()}


def draw(model: HurstModel, bare: HurstModel, label: str, path: Path) -> Path:
    """The data's variogram over the replicates of both models."""
    curves: dict[str, tuple[Any, Any, Any]] = {}
    for name, one in (("with noise", model), ("without noise", bare)):
        found = one.variogram()
        low, middle, high = torch.quantile(
            found.replicated, torch.tensor(LEVELS, dtype=torch.float64), dim=1
        )
        curves[f"{name}, 90 %"] = (middle, low, high)
    curves["data"] = (found.data,) * 3
    labels = ("lag, trading days", f"mean squared change of {label}")
    return plot_curves(found.lags, curves, labels, path, logarithmic=True, log_x=True)


def run(out: Path, smoke: bool, seed: int) -> Iterator[str]:
    """Study both series, and the simulated one."""
    scores: dict[str, dict[str, dict[str, float]]] = {}
    figures: dict[str, str] = {}
    for name, label in SERIES.items():
        study = HurstStudy(name, out / name, "levels", seed=seed, smoke=smoke)
        yield from study.run()
        table = load_series(name)
        keep = slice(-300, None) if smoke else slice(None)
        models = posteriors(table.y[keep], table.x[keep, 0], smoke, seed)
        scores[label] = {kind: moments(model) for kind, model in models.items()}
        path = out / f"{name}.png"
        draw(models["with noise"], models["without noise"], label, path)
        figures[f"Variogram of {label}, and both models"] = path.name
    scores[f"simulated, H = {KNOWN}"] = simulated(smoke, seed)
    for label, rows in scores.items():
        for kind, row in rows.items():
            yield f"{label:24s} {kind:14s} " + "  ".join(f"{k} {v:.3f}" for k, v in row.items())
    record = {
        "title": "How rough is volatility?",
        "data": {"sources": "arch: S&P 500 (Garman-Klass), VIX; a simulated path"},
        "scores": scores,
        "figures": figures,
        "versions": versions(),
    }
    yield f"report: {write_report(out, record)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="directory for results; default a new one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="300 days, coarse grids")
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="hurst_volatility_"))
    for line in run(out, options.smoke, options.seed):
        print(line)


if __name__ == "__main__":
    main()
