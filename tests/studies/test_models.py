"""Every study runs as a script in its smoke setting and leaves what it promises."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(study, folder, *arguments, launcher=()):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, str(ROOT / "models" / study), "--smoke", "--seed", "0"]
    command += ["--out", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    (report,) = folder.rglob("report.json")
    return json.loads(report.read_text(encoding="utf-8"))["scores"]


def test_every_study_has_a_test():
    names = sorted(path.name for path in (ROOT / "models").glob("*.py"))
    assert names == [
        "functional_tucker.py",
        "hierarchical_svi.py",
        "pde_advection.py",
        "pde_allen_cahn.py",
        "pde_poisson.py",
    ]


@pytest.mark.slow
def test_functional_tucker(tmp_path):
    scores = run("functional_tucker.py", tmp_path)["random"]
    ours = scores.pop("probkit")
    # the data come from the model itself, so a fit that does not beat both baselines is broken
    assert all(ours["rmse"] < 0.5 * other["rmse"] for other in scores.values())
    assert all(ours["nll"] < other["nll"] for other in scores.values())
    for figure in ("factors.png", "elbo.png", "calibration.png"):
        assert list(tmp_path.rglob(figure))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "launcher"),
    [("svi", ()), ("svi", ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"))],
    ids=["svi", "svi on two ranks"],
)
def test_hierarchical(engine, launcher, tmp_path):
    scores = run("hierarchical_svi.py", tmp_path, "--engine", engine, launcher=launcher)
    (scores,) = scores.values()
    ours = scores.pop("probkit")
    # pulled estimates beat both extremes, and intervals of 40 groups hold about nine in ten
    assert all(ours["rmse"] < other["rmse"] for other in scores.values())
    assert ours["coverage_90"] >= 0.75
    assert list(tmp_path.rglob("history.png"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("study", "bound"),
    [("pde_poisson.py", 1e-8), ("pde_allen_cahn.py", 1e-6), ("pde_advection.py", 1e-6)],
)
def test_pde_studies(study, bound, tmp_path):
    (scores,) = run(study, tmp_path).values()
    assert scores["probkit"]["relative_error"] < bound
    assert list(tmp_path.rglob("solution.png"))


@pytest.mark.slow
def test_noisy_poisson_has_error_bars(tmp_path):
    (scores,) = run("pde_poisson.py", tmp_path, "--noise", "0.05").values()
    assert 1e-6 < scores["probkit"]["relative_error"] < 0.1
