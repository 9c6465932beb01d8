"""The command as a user calls it: a whole study on a small file, predictions, and bad calls."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probkit.cli.main import main
from probkit.errors import DataError
from probkit.infer import CAVI
from probkit.report import write_report
from probkit.tensor import FunctionalTucker
from probkit.tensor.study import Study, predict_file, redraw


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
    (out / "figures" / "factors.png").unlink()
    assert {path.name for path in redraw(out).values()} == {"factors.png", "elbo.png"}
    assert (out / "figures" / "factors.png").exists()
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
        (["TABLE", "--inputs", "day,rain", "--target", "rain"], ["--inputs", "target", "rain"]),
        (["TABLE", "--inputs", "day,day"], ["--inputs", "twice", "day"]),
        (["TABLE", "--rank", "many"], ["rank", "many"]),
        (["TABLE", "--likelihood", "poisson", "--rank", "1"], ["poisson", "non-negative"]),
        (["TABLE", "--kernel", "day=rbf"], ["rbf", "matern12"]),
    ],
)
def test_bad_calls_end_with_code_2_and_a_message(
    table: Path, tmp_path: Path, arguments: list[str], words: list[str], capsys: Any
) -> None:
    arguments = [str(table) if a == "TABLE" else a for a in arguments]
    out = tmp_path / "run"
    with pytest.raises(SystemExit) as stop:
        main(["tensor", "fit", *arguments, "--out", str(out), "--quiet"])
    told = capsys.readouterr().err
    assert stop.value.code == 2
    assert "Traceback" not in told
    assert all(word in told.lower() for word in words), told
    assert not out.exists()


def test_list_names_families_data_sets_and_as_json() -> None:
    text = _run("list").stdout
    assert "families:" in text and "sst" in text
    sections = json.loads(_run("list", "--json").stdout)["result"]
    assert "tensor" in sections["families"]
    assert "sst" in sections["data sets"]


def test_doctor_finds_nothing_wrong_here() -> None:
    done = _run("doctor")
    assert done.returncode == 0, done.stdout
    assert "torch" in done.stdout and "c++ compiler" in done.stdout


def test_doctor_finds_a_version_out_of_range(monkeypatch: pytest.MonkeyPatch) -> None:
    from probkit.cli import doctor

    monkeypatch.setattr(metadata, "requires", lambda _: ["torch>=99", "no-such-package-here>=1"])
    monkeypatch.setattr(metadata, "version", _version)
    found = {finding.name: finding for finding in doctor._packages()}
    assert (found["torch"].verdict, found["torch"].remedy) == ("wrong", "needs torch>=99")
    assert found["no-such-package-here"].value == "missing"


def test_doctor_finds_a_bad_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    from probkit.cli import doctor

    found = {"numpy": "2.4.6", "netCDF4": "1.6.5", "nolds": "0.5.2"}
    monkeypatch.setattr(metadata, "version", found.__getitem__)
    (pair,) = doctor._bad_pairs()
    assert (pair.name, pair.value, pair.verdict) == ("numpy + netCDF4", "2.4.6 + 1.6.5", "wrong")
    assert "netCDF4" in pair.remedy


def _version(name: str) -> str:
    if name == "no-such-package-here":
        raise metadata.PackageNotFoundError(name)
    return "2.0"


def test_report_is_rendered_again(tmp_path: Path) -> None:
    write_report(tmp_path, {"title": "A run", "data": {"entries": 3}})
    (tmp_path / "report.md").unlink()
    done = _run("report", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "# A run" in done.stdout and (tmp_path / "report.md").exists()
    told = json.loads(_run("report", str(tmp_path), "--json").stdout)
    assert told["result"]["data"] == {"entries": 3}


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_report_of_no_run(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "report.json").write_text(text)
    done = _run("report", str(tmp_path))
    assert done.returncode == 2
    assert "directory" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["tensor", "fit", "no.csv", "--out", "no_folder"],
        ["fractional", "hurst", "no.csv", "--kind", "levels", "--out", "no_folder"],
        ["sparse", "recover", "no.npz", "--out", "no_folder"],
        ["similarity", "release", "no.csv", "--epsilon", "1", "--bounds", "0,9", "--out", "no.st"],
        ["similarity", "query", "no.safetensors", "no.csv"],
    ],
    ids=" ".join,
)
def test_missing_files_are_told_before_torch_is_loaded(words):
    code = (
        "import sys; from probkit.cli.main import main\n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2, done.stderr
    assert "There is no such file" in done.stderr


@pytest.fixture(scope="module")
def categories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fit of 0, 5 and 10 in the three categories of a column."""
    folder, noise = tmp_path_factory.mktemp("categories"), np.random.default_rng(0)
    rows = [(name, t) for name in "abc" for t in range(8)]
    lines = [f"{c},{t},{5.0 * 'abc'.index(c) + 0.01 * noise.standard_normal()}" for c, t in rows]
    (folder / "data.csv").write_text("\n".join(["c,t,y", *lines]))
    study = Study(str(folder / "data.csv"), folder / "run", rank=1, max_sweeps=5, progress=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Study, "_draw", lambda *arguments: {})
        assert list(study.run())
    return folder


def test_categories_of_points_are_those_of_the_fit(categories: Path) -> None:
    points = categories / "points.csv"
    points.write_text("c,t\nc,1\nb,2\n")
    with predict_file(categories / "run", points, None, (0.5,)).open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["c"] for row in rows] == ["c", "b"]
    assert [round(float(row["mean"])) for row in rows] == [10, 5]
    points.write_text("c,t\nc,1\nzzz,2\n")
    with pytest.raises(DataError, match=r"'c' has 1 names .*rows \[2\]: \['zzz'\].*one of a, b, c"):
        predict_file(categories / "run", points, None, (0.5,))


def test_names_without_codes_are_refused(categories: Path) -> None:
    """A fit from before its report kept the codes, and names where the fit had numbers."""
    old, points = categories / "old", categories / "named.csv"
    shutil.copytree(categories / "run", old)
    report = json.loads((old / "report.json").read_text())
    del report["study"]["levels"]
    (old / "report.json").write_text(json.dumps(report))
    points.write_text("c,t\na,1\n")
    with pytest.raises(DataError, match="'c' holds names, and the fit has kept no codes"):
        predict_file(old, points, None, (0.5,))
    points.write_text("c,t\n2,1\n")
    assert predict_file(old, points, None, (0.5,)).exists()
    points.write_text("c,t\na,b\n")
    with pytest.raises(DataError, match="'t' holds names"):
        predict_file(categories / "run", points, None, (0.5,))


@pytest.mark.parametrize(("name", "level"), [("mean", 0.5), ("sd", 0.5), ("q2.5", 0.025)])
def test_coordinates_are_not_written_over(tmp_path: Path, name: str, level: float) -> None:
    x = np.random.default_rng(0).random((20, 2))
    model = FunctionalTucker(1, num_starts=1, engine=CAVI(max_sweeps=2), input_names=["a", name])
    model.fit(x, x.sum(1)).save(tmp_path)
    with pytest.raises(DataError, match=f"coordinate '{name}' has the name of a column"):
        predict_file(tmp_path, tmp_path / "absent.csv", None, (level,))
