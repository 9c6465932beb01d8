"""X2 in a process of its own: ``python -m benchmarks.product.long_run_job FITS`` prints JSON."""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import time
import warnings
from itertools import cycle, islice
from typing import Any

import torch

from benchmarks.product.global_state import changes, snapshot
from benchmarks.product.small_fits import FITS, Options

# twenty times as long as any other; X3 and the tests cover it
LEFT_OUT = ("tensor gibbs",)


def main(count: int) -> dict[str, Any]:
    """Fit in turn; memory after the first fifth against memory at the end."""
    torch.set_num_threads(1)
    names = [name for name in FITS if name not in LEFT_OUT]
    start = time.process_time()
    sizes = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few draws: the fits are small on purpose
        for name in names:  # lazy imports, and files that libraries keep open
            FITS[name](Options(seed=0))
        before = snapshot()
        for k, name in enumerate(islice(cycle(names), count)):
            FITS[name](Options(seed=k % 97))
            if k % len(names) == 0:
                sizes.append(_resident())
        gc.collect()
        found = changes(before, snapshot())
    warm = len(sizes) // 5
    after_warm_up, at_the_end = max(sizes[warm : 2 * warm + 1]), max(sizes[-warm - 1 :])
    return {
        "fits": count,
        "after_warm_up": after_warm_up,
        "at_the_end": at_the_end,
        "growth": at_the_end / after_warm_up - 1,
        "changes": found,
        "seconds": time.process_time() - start,
        "sizes": sizes,
    }


def _resident() -> float:
    """Resident MiB of what is in use: garbage collected, freed pages handed back."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))
