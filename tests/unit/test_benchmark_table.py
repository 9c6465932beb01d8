"""The README's figures are those of the kept results, misses included."""

import json
from pathlib import Path

import pytest

from benchmarks.table import BEGIN, END, Claim, render, replaced

README = Path(__file__).parents[2] / "README.md"


def line(key, figure, baseline=None, passed=None, target=None):
    ratio = None if baseline is None else figure / baseline
    return {
        "key": key,
        "what": f"what {key} is",
        "figure": figure,
        "target": target,
        "baseline": baseline,
        "ratio": ratio,
        "pass": passed,
    }


@pytest.fixture
def results(tmp_path):
    entry = {"date": "2026-11-28", "commit": "abc", "machine": "EPYC; float64; CPU seconds"}
    rows = {
        "T1": {**entry, "lines": [line("speed", 2.0, 80.0, True, "ratio <= 0.1")]},
        "T2": {**entry, "lines": [line("error", 0.3, None, False, "<= 0.2"), line("seen", 5.0)]},
    }
    (tmp_path / "tensor.json").write_text(json.dumps(rows))
    return tmp_path


def test_figures_ratios_and_misses_come_from_the_files(results):
    claims = (Claim("tensor", "T1", "speed", "a sweep", "a loop", "s"),)
    targets = results / "targets.toml"
    targets.write_text("[tensor.T1]\nspeed = {}\n[tensor.T9]\nfit = {}\n[pde.P1]\nerror = {}\n")
    text = render(results, claims, targets)
    assert "| a sweep | 2 s | a loop, 80 s | 1 / 40 | `tensor` T1, 2026-11-28 |" in text
    assert "Of 2 targets with kept figures, 1 are missed" in text
    assert "- `tensor` T2, what error is: 0.3, target <= 0.2" in text
    assert "without kept figures: `tensor` T9, `pde` P1." in text


def test_a_claim_without_a_figure_is_an_error(results):
    with pytest.raises(KeyError):
        render(results, (Claim("tensor", "T3", "speed", "a sweep", "a loop"),))


def test_only_the_part_between_the_marks_changes():
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert replaced(page, "new") == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    with pytest.raises(ValueError, match="lacks"):
        replaced("nothing here", "new")


def test_the_readme_is_up_to_date():
    text = README.read_text(encoding="utf-8")
    assert replaced(text, render()) == text
