"""``probkit sparse`` as a user calls it: a whole recovery from a file, a comparison, bad calls."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from probkit.errors import ConfigurationError, DataError
from probkit.sparse import KroneckerSBL, simulate_recovery
from probkit.sparse.comparison import Sweep, estimate
from probkit.sparse.study import IRSStudy, RecoverStudy, read_problem


@pytest.fixture
def problem(tmp_path):
    p = simulate_recovery(num_atoms=8, num_measurements=(6, 7), is_complex=True, seed=2)
    arrays = {f"A_{k + 1}": a.numpy() for k, a in enumerate(p.dictionaries)}
    path = tmp_path / "problem.npz"
    np.savez(path, y=p.y.numpy(), x=p.x.numpy(), noise=p.noise, **arrays)
    return path


def test_recover_from_the_command_line(problem, tmp_path):
    out = tmp_path / "run"
    code = "from probkit.cli.main import main; main()"
    command = [sys.executable, "-c", code, "sparse", "recover", str(problem)]
    command += ["--out", str(out), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads((out / "report.json").read_text())
    scores = record["scores"]["x"]["probkit"]
    assert record["figures"]["Coefficients"] == "figures/coefficients.png"
    assert scores["nmse"] < 0.05
    with np.load(out / "recovery.npz") as found:
        assert found["mean"].shape == (8, 8)
        assert found["probability"].max() <= 1.0
        mean = found["mean"]
        assert found["truth"].shape == mean.shape
    np.testing.assert_allclose(KroneckerSBL.load(out).mean.numpy(), mean)
    again = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 2
    assert "not empty" in again.stderr


def test_file_noise_is_used(problem, tmp_path):
    lines = list(RecoverStudy(problem, tmp_path / "run", noise="file", progress=False).run())
    noise = read_problem(problem).noise
    assert any(f"noise {noise:.6g}" in line for line in lines)


def test_comparison_of_channels(tmp_path):
    study = IRSStudy(tmp_path / "irs", [12.0], ("svd", "perfect"), num_channels=1, num_symbols=500)
    lines = list(study.run())
    assert any("perfect" in line for line in lines)
    assert (tmp_path / "irs" / "table.csv").stat().st_size > 100
    assert len(list((tmp_path / "irs" / "figures").glob("*.png"))) == 3


def test_bands_hold_the_mean_and_shrink_with_agreement():
    values = {0: 1.0, 1: 3.0, 2: 2.0}
    sweep = Sweep("s", [0.0], ["a", "b"], [0, 1, 2], lambda m, v, s: {"e": values[s] * (m == "a")})
    assert len(list(sweep.run())) == 2
    curve = sweep.curve("a", "e")
    assert curve.low[0] < curve.mean[0] == 2.0 < curve.high[0]
    assert sweep.curve("b", "e").high[0] == 0.0


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"y": np.ones(3)}, ["A_1", "y"]),
        ({"A_1": np.ones((3, 4))}, ["y, A_1"]),
    ],
)
def test_files_without_what_is_needed(arrays, words, tmp_path):
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError) as caught:
        read_problem(path)
    assert all(word in str(caught.value) for word in words)


def test_no_file_and_no_npz(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_problem(tmp_path / "nothing.npz")
    (tmp_path / "text.npz").write_text("y")
    with pytest.raises(DataError, match="npz"):
        read_problem(tmp_path / "text.npz")


def test_unknown_method_in_a_comparison():
    a = [torch.eye(2, dtype=torch.float64)]
    for method in ("lasso", "oracle"):
        with pytest.raises(ConfigurationError, match="oracle"):
            estimate(method, a[0][0], a, noise=0.1, num_nonzero=1)
