"""One scaling measurement: ``python -m benchmarks.sparse.scale_job fit|pass|four SIZE [SEED]``."""

from __future__ import annotations

import json
import sys
import time

import torch

from benchmarks.isolate import peak_memory, reset_peak_memory
from probkit.linalg.kronecker_gaussian import condition
from probkit.sparse import (
    KroneckerSBL,
    nmse,
    oracle_least_squares,
    simulate_recovery,
    support_recovery,
)

_ROWS = {15: (8, 12, 15), 30: (16, 24, 30), 100: (50, 60, 70)}
_NONZERO = {15: 3, 30: 4, 100: 6}


def main(kind: str, size: int, seed: int = 7) -> dict[str, float]:
    torch.set_num_threads(1)
    rows = (size * 2 // 3,) * 4 if kind == "four" else _ROWS[size]
    nonzero = 3 if kind == "four" else _NONZERO[size]
    p = simulate_recovery(
        num_atoms=size, num_measurements=rows, num_nonzero=nonzero, snr_db=20.0, seed=seed
    )
    before = reset_peak_memory()
    start = time.process_time()
    if kind == "pass":
        scales = [torch.full((1, size), 0.1, dtype=torch.float64) for _ in rows]
        factors = [a.unsqueeze(0) for a in p.dictionaries]
        noise = torch.tensor([p.noise], dtype=torch.float64)
        condition(factors, scales, noise, p.y[None, None])
        seconds = time.process_time() - start
        return {"seconds": seconds, "bytes": _bytes(before, p.x.numel())}
    found = KroneckerSBL().recover(p.y, p.dictionaries).mean
    seconds, used, peak = (
        time.process_time() - start,
        _bytes(before, p.x.numel()),
        peak_memory() * 2**30 / 1e9,
    )
    oracle = oracle_least_squares(p.y, p.dictionaries, p.x)
    return {
        "seconds": seconds,
        "bytes": used,
        "peak": peak,
        "nmse": nmse(found, p.x),
        "oracle": nmse(oracle, p.x),
        "srr": support_recovery(found, p.x),
        "oracle_srr": support_recovery(oracle, p.x),
    }


def _bytes(before: float, atoms: int) -> float:
    return (peak_memory() - before) * 2**30 / atoms


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], *map(int, sys.argv[2:]))))
