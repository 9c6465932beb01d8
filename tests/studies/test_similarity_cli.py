"""``probkit similarity``: a table in, a release out, answers from the release alone."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
import torch

from probkit.cli.main import main
from probkit.errors import ConfigurationError
from probkit.privacy import PrivacyAccountant
from probkit.similarity import Release
from probkit.similarity.study import ReleaseJob, query_file


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "data.csv"
    pd.DataFrame({"age": rng.uniform(20, 60, 4000), "score": rng.normal(0, 1, 4000)}).to_csv(
        path, index=False
    )
    return path


def call(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["probkit", "similarity", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    if stop.value.code:
        raise RuntimeError(stop.value.code)


@pytest.mark.parametrize("kernel", ["gaussian", "l1", "l2", "l2sq"])
def test_release_inspect_query(table, kernel, tmp_path, monkeypatch, capsys):
    out = tmp_path / "release.safetensors"
    bounds = ("--bounds", "0,100;-5,5")
    budget = ("--epsilon", 1, "--delta", 1e-6)
    call(monkeypatch, "release", table, "--kernel", kernel, *budget, *bounds, "--out", out)
    assert "relation    replace" in capsys.readouterr().out
    call(monkeypatch, "inspect", out)
    assert "one record replaced by any other" in capsys.readouterr().out
    points = tmp_path / "points.csv"
    pd.DataFrame({"age": [40.0, 90.0], "score": [0.0, 4.0]}).to_csv(points, index=False)
    call(monkeypatch, "query", out, points)
    answers = pd.read_csv(tmp_path / "points_similarity.csv")
    assert answers.age.tolist() == [40.0, 90.0]
    assert (answers.lower_95 <= answers.value).all() and (answers.value <= answers.upper_95).all()
    with pytest.raises(RuntimeError, match="2"):  # the answers stay
        call(monkeypatch, "query", out, points)
    assert "--out: got" in capsys.readouterr().err
    near, far = answers.value
    assert (near > far) == (kernel == "gaussian")


def test_nothing_is_spent_twice(table, tmp_path, monkeypatch, capsys):
    ledger, bounds = tmp_path / "ledger.json", ("--bounds", "-10,100")
    common = ("release", table, "--kernel", "l1", "--epsilon", "1", *bounds, "--ledger", ledger)
    call(monkeypatch, *common, "--out", tmp_path / "a")
    with pytest.raises(RuntimeError, match="2"):
        call(monkeypatch, *common, "--out", tmp_path / "a")
    assert "exists already" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="2"):
        call(monkeypatch, *common, "--out", tmp_path / "b")
    assert "budget" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
    (tmp_path / "ledger.json.lock").touch()
    with pytest.raises(RuntimeError, match="2"):
        call(monkeypatch, *common, "--out", tmp_path / "b")
    assert "Another process" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["file/release", "file/below/release", "n" * 252, "n" * 300])
def test_nothing_is_spent_on_a_release_that_cannot_be_written(table, place, tmp_path):
    (tmp_path / "file").touch()
    out = tmp_path / place
    ledger = PrivacyAccountant(epsilon=1).save(tmp_path / "ledger.json")
    before = ledger.read_text()
    job = ReleaseJob(table, out, "l1", [[-10, 100]], epsilon="1/2", ledger=ledger)
    with pytest.raises(ConfigurationError, match="out: got .* expected a file in a folder"):
        list(job.run())
    assert ledger.read_text() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data.csv", "file", "ledger.json"]


def test_a_ledger_that_cannot_be_written_is_refused_before_the_data_are_read(tmp_path):
    (tmp_path / "file").touch()
    ledger, data = tmp_path / "file" / "ledger.json", tmp_path / "none.csv"
    job = ReleaseJob(data, tmp_path / "out", "l1", [[0, 1]], epsilon=1, ledger=ledger)
    with pytest.raises(ConfigurationError, match="ledger: got"):
        list(job.run())


def test_the_folder_of_a_release_is_made(table, tmp_path):
    out, ledger = tmp_path / "new" / "folder" / "release", tmp_path / "books" / "ledger.json"
    list(ReleaseJob(table, out, "l1", [[-10, 100]], epsilon=1, ledger=ledger).run())
    assert Release.load(out).num_records == 4000 and PrivacyAccountant.load(ledger).remaining == 0
    assert sorted(p.name for p in tmp_path.rglob("*.*")) == ["data.csv", "ledger.json"]


def test_answers_stand_beside_columns_of_the_same_names(tmp_path):
    names = ["value", "sd", "similarity_sd", "lower_95"]
    data = pd.DataFrame(np.random.default_rng(0).uniform(size=(500, 4)), columns=names)
    data.to_csv(tmp_path / "data.csv", index=False)
    release = tmp_path / "release"
    list(ReleaseJob(tmp_path / "data.csv", release, "l1", [[0, 1]], epsilon=1).run())
    points = data[:3]
    points.to_csv(tmp_path / "points.csv", index=False)
    found = pd.read_csv(query_file(release, tmp_path / "points.csv", None))
    pd.testing.assert_frame_equal(found[names], points)
    answer = Release.load(release).query(torch.tensor(points.to_numpy()))
    lower, upper = answer.interval(0.95)
    expected = {
        "similarity_value": answer.value,
        "similarity_similarity_sd": answer.sd,
        "similarity_lower_95": lower,
        "upper_95": upper,
    }
    assert [*found] == [*names, *expected]
    for name, column in expected.items():
        assert found[name].to_numpy() == pytest.approx(column.numpy(), rel=1e-12)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"--bounds": "everything"}, "bounds"),
        ({"--epsilon": "0"}, "positive"),
        ({"--relation": "swap"}, "relation"),
        ({"--kernel": "sinc"}, "similarity"),
        ({"--columns": "height"}, "height"),
    ],
)
def test_bad_settings_are_refused(table, changes, word, tmp_path, monkeypatch, capsys):
    settings = {"--epsilon": "1", "--bounds": "-10,100", "--out": tmp_path / "out"} | changes
    with pytest.raises(RuntimeError, match="2"):
        call(monkeypatch, "release", table, *[part for pair in settings.items() for part in pair])
    assert word in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_text_columns_are_refused(tmp_path, monkeypatch, capsys):
    path = tmp_path / "text.csv"
    pd.DataFrame({"name": ["x", "y", "z"]}).to_csv(path, index=False)
    with pytest.raises(RuntimeError, match="2"):
        call(
            monkeypatch, "release", path, "--epsilon", 1, "--bounds", "0,1", "--out", tmp_path / "o"
        )
    assert "numeric" in capsys.readouterr().err
