"""The benchmarks' frame: verdicts, crashes, missing data, the JSON keys."""

import importlib
import io
import json
import subprocess

import pytest

from benchmarks import frame
from benchmarks.frame import Context, Line, Row, Target, Unavailable, load_targets, run_rows
from benchmarks.run import FAMILIES, main
from benchmarks.store import read, stored_rows, write_row

KEYS = {"id", "key", "what", "figure", "target", "baseline", "ratio", "pass"}
TARGETS = {
    "T1": {
        "error": Target(1e-3, "<=", "dense", "2026-11-23"),
        "speed": Target(0.1, "<=", "loop", "2026-11-23", on="ratio"),
        "coverage": Target((0.88, 0.92), "range", "nominal", "2026-11-23"),
        "count": Target(8, ">=", "seeds", "2026-11-23"),
    }
}


def run(*lines, context=None, **options):
    stream = io.StringIO()
    one = Row("T1", "algebra", lambda context: iter(lines))
    report = run_rows([one], context or Context(), TARGETS, stream=stream, **options)
    return report, stream.getvalue()


@pytest.mark.parametrize(
    ("line", "passed"),
    [
        (Line("error", "e", 1e-4), True),
        (Line("error", "e", 1e-2), False),
        (Line("error", "e", float("nan")), False),
        (Line("speed", "s", 1.0, baseline=20.0), True),
        (Line("speed", "s", 1.0, baseline=5.0), False),
        (Line("speed", "s", 1.0), False),
        (Line("coverage", "c", 0.9), True),
        (Line("coverage", "c", 0.93), False),
        (Line("count", "n", 7.0), False),
        (Line("other", "o", 7.0), None),
    ],
)
def test_verdict(line, passed):
    report, printed = run(line)
    assert report.lines[0]["pass"] is passed
    assert line.what in printed
    assert (report.missed == report.lines) is (passed is False)


def test_ratio_and_target_are_reported():
    report, _ = run(Line("speed", "s", 1.0, baseline=20.0))
    assert report.lines[0]["ratio"] == 0.05
    assert report.lines[0]["target"] == "ratio <= 0.1"


def test_crash_is_a_miss_with_its_reason_and_others_go_on():
    def crash(context):
        yield Line("error", "first", 1e-5)
        raise ValueError("no such thing")

    rows = [Row("T1", "crashes", crash), Row("T2", "runs", lambda c: [Line("x", "x", 1.0)])]
    report = run_rows(rows, Context(), TARGETS, stream=io.StringIO())
    assert [line["pass"] for line in report.lines] == [True, False, None]
    assert "no such thing" in report.lines[1]["reason"]


def test_unavailable_row_has_no_verdict():
    one = Row("T7", "real data", lambda context: [context.directory("data.npz")])
    report = run_rows([one], Context(), {}, stream=io.StringIO())
    assert report.lines[0]["pass"] is None
    assert "--data-dir" in report.lines[0]["reason"]


def test_directory_names_the_missing_file(tmp_path):
    with pytest.raises(Unavailable, match=r"data\.npz"):
        Context(data_dir=tmp_path).directory("data.npz")


def test_quick_sizes_are_not_judged():
    report, _ = run(Line("error", "e", 1.0), context=Context(quick=True))
    assert report.lines[0]["pass"] is None
    assert "quick" in report.lines[0]["reason"]


def test_json_has_the_agreed_keys(tmp_path):
    path = tmp_path / "out" / "lines.json"
    run(Line("error", "e", 1e-4), Line("other", "o", 2.0), json_path=path)
    entry = json.loads(path.read_text())["T1"]
    lines = entry["lines"]
    assert {"date", "commit", "machine", "cpu_seconds"} < set(entry)
    assert set(lines[0]) == KEYS - {"id"}
    assert set(lines[1]) == KEYS - {"id"} | {"reason"}
    assert lines[0]["pass"] is True and lines[1]["pass"] is None


def test_a_run_replaces_its_rows_and_keeps_the_others(tmp_path):
    path = tmp_path / "lines.json"
    write_row(path, "T10", [{"id": "T10", "figure": 1.0}], 2.0, "a machine")
    run(Line("error", "e", 1e-2), json_path=path)
    run(Line("error", "e", 1e-4), json_path=path)
    entries = read(path)
    assert list(entries) == ["T1", "T10"]
    assert [line["figure"] for line in entries["T1"]["lines"]] == [1e-4]
    assert entries["T10"]["lines"] == [{"figure": 1.0}]
    assert stored_rows(path) == {"T1", "T10"}


def test_targets_file_is_read_and_every_entry_belongs_to_a_row():
    targets = load_targets("tensor")
    assert targets["T7"]["rmse"].value == 0.255
    importlib.import_module("benchmarks.tensor.rows")
    known = {row.id for row in frame.rows_of("tensor")}
    assert set(targets) <= known
    assert {f"T{i}" for i in range(1, 18)} | {f"F{i}" for i in range(1, 8)} <= known


def test_target_of_the_wrong_form_is_refused(tmp_path):
    path = tmp_path / "targets.toml"
    path.write_text('[tensor.T1]\ne={value=[1,2],comparison="<=",source="s",date=2026-11-23}\n')
    with pytest.raises(ValueError, match="does not go with"):
        load_targets("tensor", path)


def test_unknown_row_is_named(capsys):
    assert main(["tensor", "--only", "T99"]) == 2
    assert "T99" in capsys.readouterr().err


def test_all_runs_every_family_in_a_process_of_its_own(monkeypatch):
    commands = []

    def record(command, check):
        commands.append(command)
        return subprocess.CompletedProcess(command, int("tensor" in command))

    monkeypatch.setattr(subprocess, "run", record)
    assert main(["all", "--quick", "--json", "figures"]) == 1
    assert [command[3] for command in commands] == FAMILIES
    assert all(command[4:] == ["--quick", "--json", "figures"] for command in commands)


def test_quick_figures_are_not_kept_as_results(capsys):
    with pytest.raises(SystemExit):
        main(["tensor", "--only", "T1", "--quick", "--json"])
    assert "--quick" in capsys.readouterr().err
