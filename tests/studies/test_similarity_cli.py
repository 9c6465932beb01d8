"""``probkit similarity``: a table in, a release out, answers from the release alone."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest

from probkit.cli.main import main


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
