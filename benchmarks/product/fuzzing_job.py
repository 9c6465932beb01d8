"""X1 in a process of its own: ``python -m benchmarks.product.fuzzing_job LOADER COUNT``."""

from __future__ import annotations

import json
import sys

from benchmarks.product.fuzzing import faults
from benchmarks.product.loaders import LOADERS

if __name__ == "__main__":
    chosen, number = LOADERS[sys.argv[1]], int(sys.argv[2])
    texts = [str(fault) for fault in faults(chosen, range(number))]
    print(json.dumps({"files": number * len(chosen.ways), "faults": texts}))
