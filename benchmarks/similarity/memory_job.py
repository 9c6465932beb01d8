"""Peak memory of a build: ``python -m benchmarks.similarity.memory_job N D FEATURES``."""

from __future__ import annotations

import json
import sys

import torch

from benchmarks.isolate import peak_memory, reset_peak_memory
from probkit.similarity import PrivateKDE


def main(size: int, dim: int, features: int) -> dict[str, float]:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size, dim, generator=generator, dtype=torch.float32)
    sketch = PrivateKDE(dim, bandwidth=10.0, num_features=8, projection="structured")
    sketch.update(x[:10])  # what loading the libraries takes is not the build's
    before = reset_peak_memory()
    settings = {"num_features": features, "projection": "structured"}
    PrivateKDE(dim, bandwidth=10.0, **settings).update(x)
    return {"growth": (peak_memory() - before) * 2**30 / 1e9}


if __name__ == "__main__":
    print(json.dumps(main(*map(int, sys.argv[1:4]))))
