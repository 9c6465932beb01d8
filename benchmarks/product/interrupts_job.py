"""X3 in a process of its own: ``python -m benchmarks.product.interrupts_job NAME HOW COUNT``."""

from __future__ import annotations

import json
import sys
from random import Random

import torch

from benchmarks.product import interrupts

if __name__ == "__main__":
    torch.set_num_threads(1)
    stop = {"raised": interrupts.raised, "killed": interrupts.killed}[sys.argv[2]]
    print(json.dumps(stop(sys.argv[1], int(sys.argv[3]), Random(1))._asdict()))
