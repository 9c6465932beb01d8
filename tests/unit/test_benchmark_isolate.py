"""Jobs in processes of their own: results, failures, signals, peak memory."""

import signal
import subprocess

import pytest

from benchmarks.isolate import JobFailed, kill_when, run_job

JOB = """
import json, pathlib, sys, time
kind, folder = sys.argv[1], pathlib.Path(sys.argv[2])
if kind == "fail":
    raise ValueError("the reason")
if kind == "wait":
    (folder / "ready").touch()
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        print("interrupted")
        sys.exit(3)
if kind == "memory":
    import numpy as np
    from benchmarks.isolate import peak_memory, reset_peak_memory
    before = reset_peak_memory()
    array = np.ones(2**25)
    print(json.dumps({"grown": peak_memory() - before}))
    sys.exit(0)
print("noise")
print(json.dumps({"kind": kind}))
"""


@pytest.fixture
def job(tmp_path, monkeypatch):
    (tmp_path / "benchmark_job.py").write_text(JOB)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "benchmark_job"


def test_last_line_is_the_result(job, tmp_path):
    assert run_job(job, "plain", tmp_path) == {"kind": "plain"}


def test_failure_carries_the_reason(job, tmp_path):
    with pytest.raises(JobFailed, match="exited with 1: ValueError: the reason"):
        run_job(job, "fail", tmp_path)


def test_time_limit(job, tmp_path):
    with pytest.raises(subprocess.TimeoutExpired):
        run_job(job, "wait", tmp_path, timeout=0.5)


@pytest.mark.parametrize(
    ("sign", "code", "text"),
    [(signal.SIGKILL, -signal.SIGKILL, ""), (signal.SIGINT, 3, "interrupted")],
)
def test_signal_arrives_when_the_file_appears(job, tmp_path, sign, code, text):
    got, output = kill_when(job, "wait", tmp_path, file=tmp_path / "ready", sign=sign)
    assert got == code
    assert output.strip() == text


def test_peak_memory_grows_with_an_array(job):
    # a process of its own: where the peak cannot be reset, earlier tests' memory would hide it
    assert run_job(job, "memory", ".")["grown"] > 0.2
