"""One scaling measurement: ``python -m benchmarks.tensor.scale_job sweep|tucker|fit N``."""

from __future__ import annotations

import json
import sys
import time

import torch

from benchmarks.isolate import peak_memory, reset_peak_memory
from benchmarks.tensor.adapter import fit, latent, rmse
from probkit.infer import CAVI
from probkit.kernels import MaternKernel
from probkit.tensor.entries import Entries
from probkit.tensor.likelihoods import Gaussian
from probkit.tensor.simulate import SimulatedTensor, simulate_functional_tucker
from probkit.tensor.variational import TuckerVariational


def main(kind: str, num_entries: int) -> dict[str, float]:
    torch.set_num_threads(1)
    if kind == "tucker":
        data = _data(num_entries, (428, 501, 1461))
        return _sweeps(data, "tucker", 7, 3)
    data = _data(num_entries, (300, 300, 1000))
    return _sweeps(data, "cp", 3, 6) if kind == "sweep" else _fit(data)


def _data(num_entries: int, sizes: tuple[int, ...]) -> SimulatedTensor:
    return simulate_functional_tucker(
        num_entries,
        num_coordinates=sizes,
        rank=3,
        lengthscales=(0.3, 0.2, 0.1),
        nu=1.5,
        noise=0.1,
        noise_is_relative=True,
        generator=0,
    )


def _sweeps(data: SimulatedTensor, structure: str, rank: int, count: int) -> dict[str, float]:
    def kernel(mode: int, rank: int) -> MaternKernel:
        kernel = MaternKernel(0.5, batch_shape=torch.Size([rank]))
        kernel.lengthscale = 0.2
        return kernel

    before = reset_peak_memory()
    entries = Entries.from_columns(list(data.x.T), data.y)
    model = TuckerVariational(entries, Gaussian(), structure, kernel)
    state = model.initial((rank,) * 3, torch.Generator().manual_seed(0))
    spent = []
    for _ in range(count):
        start = time.process_time()
        state, _ = model.sweep(state, learn=False)
        spent.append(time.process_time() - start)
    peak = peak_memory()
    return {"sweep": sorted(spent)[len(spent) // 2], "growth": peak - before, "peak": peak}


def _fit(data: SimulatedTensor) -> dict[str, float]:
    reset_peak_memory()
    start = time.process_time()
    engine = CAVI(max_sweeps=20)
    model = fit(
        data.x, data.y, rank=3, structure="cp", likelihood="gaussian", num_starts=1, engine=engine
    )
    seconds = time.process_time() - start
    peak = peak_memory()
    some = slice(0, 100_000)
    error = rmse(latent(model, data.x[some])[0], data.f[some]) / float(data.f.std())
    return {"seconds": seconds, "peak": peak, "error": error}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))
