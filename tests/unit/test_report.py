"""Scores against hand-worked values and sampling, baselines against known surfaces, the report."""

import json
import math

import pytest
import torch

from probkit.baselines import Baselines
from probkit.errors import ShapeError
from probkit.report import regression_scores, write_report

F64 = torch.float64
LEVELS = (0.025, 0.05, 0.25, 0.75, 0.95, 0.975)


def normal_quantiles(mean, sd):
    z = torch.special.ndtri(torch.tensor(LEVELS, dtype=F64))
    return {level: mean + sd * value for level, value in zip(LEVELS, z.tolist(), strict=True)}


def test_scores_by_hand():
    y = torch.tensor([0.0, 1.0, 2.0], dtype=F64)
    mean = torch.tensor([0.0, 3.0, 1.0], dtype=F64)
    quantiles = {0.05: mean - 1, 0.95: mean + 1}
    scores = regression_scores(y, mean, torch.ones(3, dtype=F64), quantiles)
    assert scores["rmse"] == pytest.approx(math.sqrt(5 / 3))
    assert scores["mae"] == pytest.approx(1.0)
    assert scores["nll"] == pytest.approx(0.5 * math.log(2 * math.pi) + 5 / 6)
    assert scores["coverage_90"] == pytest.approx(2 / 3)
    # width 2, and the second target lies 1 outside: 2 / 0.1 * 1 / 3 on average
    assert scores["interval_score_90"] == pytest.approx(2 + 20 / 3)
    assert set(scores) == {"rmse", "mae", "nll", "coverage_90", "interval_score_90"}


def test_given_log_density_is_used():
    y = torch.zeros(4, dtype=F64)
    density = torch.tensor([-1.0, -2.0, -3.0, -4.0], dtype=F64)
    assert regression_scores(y, y, y + 1, log_density=density)["nll"] == pytest.approx(2.5)


def test_exact_intervals_have_their_coverage():
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(20_000, generator=generator, dtype=F64)
    sd = 0.5 + torch.rand(20_000, generator=generator, dtype=F64)
    y = mean + sd * torch.randn(20_000, generator=generator, dtype=F64)
    scores = regression_scores(y, mean, sd, normal_quantiles(mean, sd))
    for percent in (50, 90, 95):
        level = percent / 100
        error = math.sqrt(level * (1 - level) / 20_000)
        assert scores[f"coverage_{percent}"] == pytest.approx(level, abs=4 * error)


def test_shapes_that_disagree_are_refused():
    y = torch.zeros(3)
    with pytest.raises(ShapeError, match="mean"):
        regression_scores(y, torch.zeros(3, 1), torch.ones(3))
    with pytest.raises(ShapeError, match=r"quantiles\[0.05\]"):
        regression_scores(y, y, y + 1, {0.05: torch.zeros(2), 0.95: y})
    with pytest.raises(ShapeError, match="at least one target"):
        regression_scores(torch.zeros(0), torch.zeros(0), torch.ones(0))


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_interpolation_is_exact_for_linear_surfaces(dimension):
    generator = torch.Generator().manual_seed(1)
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=F64)] * dimension)
    inner = torch.rand(100, dimension, generator=generator, dtype=F64)
    x = torch.cat([corners.reshape(-1, dimension), inner]) * 50 - 3
    y = x.sum(1) + 2
    test_x = torch.rand(40, dimension, generator=generator, dtype=F64) * 50 - 3
    scores = Baselines(x, y).scores(test_x, test_x.sum(1) + 2)
    assert list(scores) == ["mean", "linear interpolation"]
    # a corner left out for the spread makes that spread positive, while the prediction is exact
    assert scores["linear interpolation"]["rmse"] < 1e-9
    assert scores["mean"]["rmse"] > 1.0


def test_mean_baseline_is_the_normal_law_of_the_training_targets():
    x = torch.arange(6, dtype=F64).reshape(3, 2)
    train_y, test_y = torch.tensor([1.0, 2.0, 3.0], dtype=F64), torch.tensor([2.0], dtype=F64)
    scores = Baselines(x, train_y).scores(x[:1], test_y)["mean"]
    assert scores["rmse"] == 0.0
    assert scores["nll"] == pytest.approx(0.5 * math.log(2 * math.pi * 2 / 3))


def test_outside_the_hull_the_nearest_point_answers():
    x = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1], [0.5, 0.5]], dtype=F64)
    y = torch.tensor([0.0, 10.0, 20.0, 30.0, 15.0], dtype=F64)
    far = torch.tensor([[2.0, 2.0]], dtype=F64)
    scores = Baselines(x, y).scores(far, torch.tensor([30.0], dtype=F64))
    assert scores["linear interpolation"]["rmse"] == 0.0


def test_many_points_are_thinned_and_the_name_says_so():
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(2100, 4, generator=generator, dtype=F64)
    first = Baselines(x, x.sum(1)).scores(x[:50], x[:50].sum(1))
    name = "linear interpolation (2000 of 2100 points)"
    assert list(first) == ["mean", name]
    assert first == Baselines(x, x.sum(1)).scores(x[:50], x[:50].sum(1))


def test_points_on_a_line_and_constant_coordinates():
    t = torch.linspace(0, 1, 50, dtype=F64)
    line = torch.stack([t, 2 * t, -t], 1)
    assert list(Baselines(line, t).scores(line[:5], t[:5])) == ["mean", "nearest point"]
    flat = torch.stack([t, torch.ones_like(t)], 1)
    scores = Baselines(flat, 3 * t).scores(flat[:5], 3 * t[:5])
    assert scores["linear interpolation"]["rmse"] < 1e-12


def test_repeated_points_are_averaged():
    x = torch.cartesian_prod(torch.arange(3.0), torch.arange(3.0)).repeat(2, 1)
    y = torch.cat([torch.zeros(9), torch.ones(9)])
    scores = Baselines(x, y).scores(x[:1], torch.tensor([0.5]))
    assert scores["linear interpolation"]["rmse"] == 0.0


RECORD = {
    "title": "A run",
    "data": {"source": "numbers | more", "entries": 10},
    "held_out": {"random": "10 % of the cells", "years": "1980 and 1990"},
    "scores": {
        "random": {"probkit": {"rmse": 0.123456, "nll": float("inf")}, "mean": {"rmse": 1.5}},
    },
    "status": {
        "name": "max_steps",
        "message": "The steps were used up.",
        "remedy": "allow more",
        "detail": "",
    },
    "ranks": torch.tensor([2, 3]),
    "diagnostics": {"khat": float("nan"), "converged": True, "warnings": ["look here"]},
    "versions": {"probkit": "0.1.0"},
    "figures": {"Factors": "figures/factors.png"},
}


def test_report_is_strict_json_and_readable_text(tmp_path):
    path = write_report(tmp_path / "new" / "folder", RECORD)
    assert path.name == "report.md"
    strict = json.loads(
        path.with_name("report.json").read_text(encoding="utf-8"),
        parse_constant=lambda name: pytest.fail(f"{name} is no JSON"),
    )
    assert strict["ranks"] == [2, 3]
    assert strict["diagnostics"]["khat"] == "nan"
    assert strict["scores"]["random"]["probkit"]["rmse"] == 0.123456
    text = path.read_text(encoding="utf-8")
    for part in (
        "# A run",
        "**max_steps**: The steps were used up.",
        "Remedy: allow more.",
        "| probkit | 0.1235 | inf |",
        "| mean | 1.5 | – |",
        "Held out: 1980 and 1990.",
        "numbers \\| more",
        "- look here",
        "![Factors](figures/factors.png)",
        "| mode 1 | 3 |",
        "How to read the scores",
    ):
        assert part in text


def test_only_scores_that_are_there_are_explained(tmp_path):
    scores = {"x": {"probkit": {"nmse": 0.1}}}
    record = {"scores_title": "Scores against the truth", "scores": scores}
    text = write_report(tmp_path, record).read_text(encoding="utf-8")
    assert "## Scores against the truth" in text and "- **nmse**" in text
    assert "rmse" not in text and "Baselines" not in text


def test_absent_sections_are_left_out(tmp_path):
    text = write_report(tmp_path, {"title": "Empty"}).read_text(encoding="utf-8")
    assert text == "# Empty\n"


def test_points_are_interpolated_within_slices_where_slices_differ():
    generator = torch.Generator().manual_seed(3)
    slopes = 3 * torch.randn(30, generator=generator, dtype=F64)
    cells = torch.cartesian_prod(torch.linspace(0, 1, 7, dtype=F64), torch.arange(30.0).double())
    y = slopes[cells[:, 1].long()] * cells[:, 0]
    held = torch.rand(len(y), generator=generator) < 0.1
    held &= (cells[:, 0] > 0) & (cells[:, 0] < 1)
    scores = Baselines(cells[~held], y[~held]).scores(cells[held], y[held])
    assert scores["linear interpolation"]["rmse"] < 1e-9
