"""Runs a benchmark job in a process of its own: for peak memory, kills and fresh interpreters."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

__all__ = ["JobFailed", "kill_when", "peak_memory", "reset_peak_memory", "run_job"]

_GIB = 2.0**30


class JobFailed(RuntimeError):
    """The job exited with an error; the message ends with the last line of its output."""


def run_job(module: str, *arguments: object, timeout: float = 3600.0) -> dict[str, Any]:
    """Run ``python -m module arguments`` and return the JSON object of its last output line."""
    run = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    if run.returncode != 0:
        lines = run.stderr.strip().splitlines() or ["no output"]
        raise JobFailed(f"{module} exited with {run.returncode}: {lines[-1]}")
    return json.loads(run.stdout.strip().splitlines()[-1])


def kill_when(
    module: str, *arguments: object, file: Path, sign: signal.Signals, timeout: float = 600.0
) -> tuple[int, str]:
    """Start a job, send it ``sign`` as soon as ``file`` exists; return exit code and output."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            env=_environment(),
            stdout=output,
            stderr=output,
            text=True,
            preexec_fn=_heed_interrupts,
        )
        deadline = time.monotonic() + timeout
        try:
            while not file.exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            if process.poll() is None:
                process.send_signal(sign)
            process.wait(timeout=timeout)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        output.seek(0)
        return process.returncode, output.read()


def _heed_interrupts() -> None:
    """A shell's background jobs ignore SIGINT, and children would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def reset_peak_memory() -> float:
    """Forget the peak so far, where the system can; returns the resident size now in GiB."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return _status("VmRSS")
    except OSError:  # not Linux, or not permitted: growth is then counted from the old peak
        return peak_memory()


def peak_memory() -> float:
    """Peak resident size in GiB since the start or the last reset."""
    try:
        return _status("VmHWM")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GIB


def _status(name: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name):
            return float(line.split()[1]) * 1024 / _GIB
    raise OSError(f"no {name} in /proc/self/status")


def _environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
