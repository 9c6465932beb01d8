"""One side of T16: ``python -m benchmarks.tensor.hyperspectral_job probkit|tensorly|... SIZE``."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import torch

from benchmarks.isolate import peak_memory
from benchmarks.tensor.hyperspectral_data import Scene, coordinates, load_scene

RANK = (30, 30, 6)


def main(kind: str, size: int) -> dict[str, float]:
    torch.set_num_threads(1)
    scene = load_scene(size=size)
    start = time.process_time()
    if kind == "probkit":
        figures = _probkit(scene)
    elif kind == "tensorly":
        figures = _tensorly(scene)
    else:
        figures = _interpolation(scene)
    return {"seconds": time.process_time() - start, "peak": peak_memory()} | figures


def _probkit(scene: Scene) -> dict[str, float]:
    from benchmarks.tensor.adapter import fit, scores

    targets = torch.from_numpy(scene.values[scene.observed])
    start = time.process_time()
    model = fit(
        coordinates(scene.observed), targets, rank=RANK, likelihood="gaussian", num_starts=1
    )
    seconds = time.process_time() - start
    found = {}
    for name, mask in (("entries", scene.held_entries), ("bands", scene.held_bands)):
        found[name] = scores(model, coordinates(mask), torch.from_numpy(scene.values[mask]))
    return {
        "seconds": seconds,
        "entries": found["entries"].rmse,
        "bands": found["bands"].rmse,
        "coverage": found["entries"].coverage,
        "band_coverage": found["bands"].coverage,
    }


def _tensorly(scene: Scene) -> dict[str, float]:
    from benchmarks.baselines.tensorly_tucker import masked_tucker

    return _errors(scene, masked_tucker(scene.values, scene.observed, RANK))


def _interpolation(scene: Scene) -> dict[str, float]:
    from benchmarks.baselines.interpolation import interpolate_bands, interpolate_tent

    trilinear = _errors(scene, interpolate_tent(scene.values, scene.observed))
    pixels = _errors(scene, interpolate_bands(scene.values, scene.observed))
    return trilinear | {f"pixel_{name}": value for name, value in pixels.items()}


def _errors(scene: Scene, estimate: np.ndarray) -> dict[str, float]:
    def error(mask: np.ndarray) -> float:
        return float(np.sqrt(np.square((estimate - scene.values)[mask]).mean()))

    return {"entries": error(scene.held_entries), "bands": error(scene.held_bands)}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))
