"""Every study runs as a script in its smoke setting and leaves what it promises."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "models").glob("*.py"))


def test_there_is_a_study():
    assert [path.name for path in STUDIES] == ["functional_tucker.py"]


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.stem)
def test_study_runs_in_its_smoke_setting(study, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(study), "--smoke", "--seed", "0", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    (report,) = tmp_path.rglob("report.json")
    scores = json.loads(report.read_text(encoding="utf-8"))["scores"]["random"]
    ours = scores.pop("probkit")
    # the data come from the model itself, so a fit that does not beat both baselines is broken
    assert all(ours["rmse"] < 0.5 * other["rmse"] for other in scores.values())
    assert all(ours["nll"] < other["nll"] for other in scores.values())
    for figure in ("factors.png", "elbo.png", "calibration.png"):
        assert list(tmp_path.rglob(figure))
