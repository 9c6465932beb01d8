"""E5: data-parallel SVI: two ranks against one, a killed rank, the resumed fit."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.engines.parallel_job import fit, parameters
from benchmarks.frame import Context, Line, row
from probkit.infer import SVI

__all__ = ["distance", "run_ranks", "single"]

_JOB = "benchmarks.engines.parallel_job"
_LOST = 3
"""exit code of a rank that reports that another one is gone"""


@row("E5", "data-parallel SVI with two processes")
def parallel(context: Context) -> Iterator[Line]:
    rows = context.size(20_000, 500)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for key, batch in (("full", None), ("minibatch", rows // 4)):
            seconds = _torchrun(folder / f"{key}.npz", rows, batch)
            reference, alone = single(rows, batch)
            what = f"largest parameter difference after 200 steps, {key} batch, torchrun"
            yield Line(key, what, distance(folder / f"{key}.npz", reference))
            what = f"CPU s of one rank of two, 200 steps, {key} batch (baseline: alone)"
            yield Line(f"{key}_seconds", what, seconds, alone)
        large = context.size(1_000_000, 1000)
        seconds = _torchrun(folder / "large.npz", large, None, steps=20)
        what = f"CPU s of one rank of two, 20 steps, {large} rows (baseline: alone)"
        yield Line("large_seconds", what, seconds, single(large, None, steps=20)[1])
        reference, _ = single(rows, None)
        common = ["--rows", rows, "--checkpoint", folder / "checkpoint"]
        codes, outputs = run_ranks(2, folder / "lost.npz", *common, "--lose", 121)
        told = codes[0] == _LOST and "resume=True" in outputs[0] and codes[1] == -signal.SIGKILL
        yield Line(
            "killed", "rank 1 killed in step 120: rank 0 says so and how to go on", float(told)
        )
        codes, outputs = run_ranks(2, folder / "resumed.npz", *common)
        if any(codes):
            raise RuntimeError(f"the resumed fit failed: {outputs}")
        what = "largest parameter difference, resumed after the kill"
        yield Line("resumed", what, distance(folder / "resumed.npz", reference))


def single(rows: int, batch: int | None, steps: int = 200) -> tuple[dict[str, np.ndarray], float]:
    """Parameters fitted by plain, eager ``SVI`` on one process, and CPU seconds of the loop."""
    engine = SVI(
        steps=steps,
        batch_size=batch,
        num_posterior_samples=10,
        num_diagnostic_samples=0,
        compile="off",  # native steps draw other random numbers
    )
    result = fit(engine, rows, 50)
    return parameters(result), float(result.history["seconds"][-1])


def distance(file: Path, reference: dict[str, np.ndarray]) -> float:
    """Largest difference between parameters in a file and given ones."""
    with np.load(file) as found:
        return max(float(np.abs(found[name] - v).max()) for name, v in reference.items())


def run_ranks(
    num_ranks: int, *arguments: object, timeout: float = 300.0
) -> tuple[list[int], list[str]]:
    """Start the job's ranks without ``torchrun``, which would end them all when one is lost.

    Returns the exit codes and the outputs, by rank.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", _JOB, *map(str, arguments)],
            env=os.environ
            | {"RANK": str(rank), "WORLD_SIZE": str(num_ranks), "OMP_NUM_THREADS": "1"}
            | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(num_ranks)
    ]
    try:
        outputs = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], outputs


def _torchrun(out: Path, rows: int, batch: int | None, steps: int = 200) -> float:
    """CPU seconds of rank 0's loop."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [
        "--nproc-per-node",
        "2",
        "-m",
        _JOB,
        str(out),
        "--rows",
        str(rows),
        "--steps",
        str(steps),
    ]
    if batch is not None:
        command += ["--batch", str(batch)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise RuntimeError(f"torchrun failed: {run.stderr.strip()[-500:]}")
    with np.load(out) as found:
        return float(found["seconds"][-1])
