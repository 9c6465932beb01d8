"""The command as a user calls it: a whole study on a small file, predictions, and bad calls."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "from probkit.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "rain.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["day", "lat", "lon", "rain"])
        for _ in range(500):
            day, lat, lon = rng.integers(0, 20), rng.integers(0, 8), rng.integers(0, 9)
            value = np.sin(day / 4) * (1 + lat / 8) + 0.3 * lon + 0.1 * rng.standard_normal()
            writer.writerow([f"2020-01-{day + 1:02d}", lat, lon, f"{value:.4f}"])
    return path


def test_fit_report_predict(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = _run("tensor", "fit", str(table), "--out", str(out), "--smoke", "--quiet")
    assert done.returncode == 0, done.stderr
    names = {"posterior.nc", "manifest.json", "state.safetensors", "report.json", "report.md"}
    assert names <= {path.name for path in out.iterdir()}
    assert (out / "figures" / "factors.png").stat().st_size > 1000
    scores = json.loads((out / "report.json").read_text())["scores"]["random"]
    assert scores["probkit"]["rmse"] < scores["mean"]["rmse"]
    assert "probkit" in done.stdout
    points = tmp_path / "points.csv"
    points.write_text("day,lat,lon\n2020-01-05,2.5,3\n2020-02-01,1,1\n")
    done = _run("tensor", "predict", str(out), str(points))
    assert done.returncode == 0, done.stderr
    with (tmp_path / "points_predicted.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["q5"]) < float(row["mean"]) < float(row["q95"]) for row in rows] == [True] * 2
    again = _run("tensor", "fit", str(table), "--out", str(out), "--smoke")
    assert again.returncode == 2
    assert "not empty" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing.csv"], ["no such file", "nothing.csv"]),
        (["nosuchset"], ["no such data set", "sst"]),
        (["TABLE", "--target", "snow"], ["snow", "rain"]),
        (["TABLE", "--rank", "many"], ["rank", "many"]),
        (["TABLE", "--likelihood", "poisson", "--rank", "1"], ["poisson", "non-negative"]),
        (["TABLE", "--kernel", "day=rbf"], ["rbf", "matern12"]),
    ],
)
def test_bad_calls_end_with_code_2_and_a_message(
    table: Path, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    arguments = [str(table) if a == "TABLE" else a for a in arguments]
    out = tmp_path / "run"
    done = _run("tensor", "fit", *arguments, "--out", str(out), "--quiet")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert all(word in done.stderr.lower() for word in words), done.stderr
    assert not out.exists()


def test_list_and_doctor() -> None:
    assert "sst" in _run("list").stdout
    assert "torch" in _run("doctor").stdout
