"""R21: the amortised posterior against the grid: its error and its time."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from benchmarks.frame import Context, Line, row
from probkit.fractional import HurstEncoder, HurstModel
from probkit.statespace.fractional_noise import sample_fgn


@row("R21", "an encoder corrected by the filter against the grid, N = 256, without noise")
def encoder(context: Context) -> Iterator[Line]:
    count = context.size(250, 5)
    start = time.process_time()
    made = HurstEncoder("increments", 256, noise=False).train(steps=context.size(500, 30), seed=0)
    trained = time.process_time() - start
    y = torch.cat([sample_fgn(h, 256, count, seed=i) for i, h in enumerate((0.2, 0.4, 0.6, 0.8))])
    seconds, found = [], []
    for engine in (made, None):
        start = time.process_time()
        found.append(HurstModel("increments", noise=False, engine=engine).fit(y).result_)
        seconds.append(time.process_time() - start)
    ours, grid = (result.posterior.mean()["hurst"] for result in found)
    gap = (ours - grid) / found[1].posterior.sd()["hurst"]
    yield Line("gap", "RMS gap of corrected mean and grid, posterior sd", float(gap.std()))
    shapes = torch.tensor(found[0].diagnostics["khat_by_series"])
    share = float((shapes > 0.7).double().mean())
    yield Line("khat", "share of series with k-hat above .7", share)
    yield Line("seconds", "1000 series, CPU s / grid", *seconds)
    yield Line("training", "training, CPU s", trained)
