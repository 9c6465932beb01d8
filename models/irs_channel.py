"""Study: channels through an intelligent reflecting surface (IRS), all methods against the SNR.

    python models/irs_channel.py --snr 4,8,12,16,20 --channels 20 --out results
    python models/irs_channel.py --engine svi          # the Pyro model as well, or nuts
    python models/irs_channel.py --smoke               # small, under a minute

A user with 6 antennas reaches a base station with 16 over 256 reflecting elements. From 288 complex
measurements the coefficients on 5 832 combinations of angles are recovered, and from them the
channels. Reported: error of the channels (NMSE), symbol errors of beams chosen by the estimate
("perfect" chooses by the true channel), CPU time, and for the methods with a posterior how many
true channel entries their 90 % intervals hold. He & Joseph, IEEE TSP 2024, arXiv 2307.14719.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from probkit.distributions import KroneckerSparseNormal
from probkit.infer import NUTS, SVI
from probkit.infer.provenance import versions
from probkit.report import write_report
from probkit.sparse import KroneckerSBL, simulate_irs
from probkit.sparse.comparison import Sweep, timed
from probkit.sparse.irs import IRSChannel
from probkit.sparse.study import IRSStudy, channel_coverage

METHODS = ["evidence", "pattern_coupled", "paper_pattern_coupled", "svd", "am", "ksbl", "perfect"]
_INTERVALS = ("evidence", "pattern_coupled")
_DRAWS = 50


def model(y: Tensor, dictionaries: list[Tensor], noise: float) -> None:
    """Circular complex x with variances g_1 x ... x g_I, integrated out; angles share scales."""
    # the level that gives the signal the power of the data, shared by the factors
    power = y.abs().square().mean() * y.numel()
    size = math.prod(float(a.abs().square().sum()) for a in dictionaries)
    centre = float((power / size).log()) / len(dictionaries)
    scales = []
    for k, a in enumerate(dictionaries):
        middle = torch.full((a.shape[-1],), centre, dtype=y.real.dtype)
        scales.append(pyro.sample(f"log_scale_{k}", dist.Normal(middle, 4.0).to_event(1)).exp())
    law = KroneckerSparseNormal(dictionaries, scales, y.real.new_tensor(noise))
    pyro.sample("y", law, obs=y)


def engine_mean(name: str, c: IRSChannel, smoke: bool) -> Tensor:
    """Posterior mean of x from an engine's draws of the scales."""
    engine: Any = SVI(steps=200 if smoke else 1500, learning_rate=0.03)
    if name == "nuts":
        few = {"num_samples": 30, "num_warmup": 30} if smoke else {}
        engine = NUTS(**few)
    result = engine.fit(model, (c.y, c.dictionaries, c.noise), seed=0)
    draws = result.posterior.sample(_DRAWS, torch.Generator().manual_seed(0))
    scales = [draws[f"log_scale_{k}"].exp() for k in range(len(c.dictionaries))]
    noise = torch.full((_DRAWS,), c.noise, dtype=torch.float64)
    return KroneckerSparseNormal(c.dictionaries, scales, noise).posterior(c.y).mean.mean(0)


def coverage(
    methods: list[str], snr_db: list[float], seeds: range
) -> dict[str, dict[str, dict[str, float]]]:
    """Mean share of channel entries inside 90 % intervals, by SNR and method."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for snr in snr_db:
        for method in [m for m in _INTERVALS if m in methods]:
            shares = []
            for seed in seeds:
                c = simulate_irs(snr_db=snr, seed=seed)
                recovered = KroneckerSBL(method).recover(c.y, c.dictionaries)
                generator = torch.Generator().manual_seed(seed)
                shares.append(channel_coverage(c, recovered, generator))
            row = {"coverage_90": sum(shares) / len(shares)}
            found.setdefault(f"intervals at {snr:g} dB, noise learned", {})[method] = row
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--snr", default="4,8,12,16,20", help="decibels, separated by commas")
    parser.add_argument("--methods", default=",".join(METHODS), help="separated by commas")
    parser.add_argument("--engine", choices=["structured", "svi", "nuts"], default="structured")
    parser.add_argument("--channels", type=int, default=10, help="for each SNR")
    parser.add_argument("--out", type=Path, help="directory for results; default a new one")
    parser.add_argument("--seed", type=int, default=0, help="of the first channel")
    parser.add_argument("--smoke", action="store_true", help="small and quick")
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="irs_channel_"))
    levels = [float(part) for part in options.snr.split(",")]
    levels = levels[2:3] if options.smoke else levels
    methods = options.methods.split(",")
    if options.engine != "structured":
        methods.append(options.engine)
    seeds = range(options.seed, options.seed + (1 if options.smoke else options.channels))
    study = IRSStudy(out=out, num_symbols=1000 if options.smoke else 10_000)

    def trial(method: str, snr_db: float, seed: int) -> Mapping[str, float]:
        if method not in ("svi", "nuts"):
            return study.trial(method, snr_db, seed)
        c = simulate_irs(snr_db=snr_db, seed=seed)
        x, seconds = timed(lambda: engine_mean(method, c, options.smoke))
        rate = study.symbol_errors(c, c.channel(x), snr_db)
        return {"nmse": c.nmse(x), "symbol_errors": rate, "seconds": seconds}

    sweep = Sweep("SNR (dB)", levels, methods, seeds, trial)
    for line in sweep.run():
        print(line, flush=True)
    sweep.write_table(out / "table.csv")
    figures = sweep.draw(out / "figures", ("nmse", "symbol_errors", "seconds"))
    shares = coverage(methods, levels, seeds)
    record: dict[str, Any] = {
        "title": "Channel estimation through an intelligent reflecting surface",
        "data": {"channels for each SNR": len(seeds)},
        "scores": {**sweep.scores(), **shares},
        "figures": {caption: f"figures/{file}" for caption, file in figures.items()},
        "versions": versions(),
    }
    for label, rows in shares.items():
        print(label, *(f"{m} {row['coverage_90']:.3f}" for m, row in rows.items()))
    print(f"report: {write_report(out, record)}")


if __name__ == "__main__":
    main()
