"""Figures: files are written, nothing global is touched, and what is drawn is what was given."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from probkit import plot
from probkit.errors import DependencyError, ShapeError
from probkit.fractional.video_figures import plot_frames
from probkit.tensor.figures import known_places

GENERATOR = torch.Generator().manual_seed(0)


def is_png(path):
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and path.stat().st_size > 5000


@pytest.fixture
def figures(monkeypatch):
    """Every figure that is saved, for inspection."""
    saved = []
    write = FigureCanvasAgg.print_figure

    def keep(canvas, *arguments, **options):
        saved.append(canvas.figure)
        return write(canvas, *arguments, **options)

    monkeypatch.setattr(FigureCanvasAgg, "print_figure", keep)
    return saved


def factor(size, rank):
    mean = torch.randn(size, rank, generator=GENERATOR, dtype=torch.float64)
    return torch.linspace(-1, 1, size, dtype=torch.float64), mean, 0.1 + 0 * mean


def test_factors_have_a_panel_for_each_component(tmp_path, figures):
    factors = [factor(9, 3), factor(4, 1), factor(1, 2)]
    path = plot.plot_factors(factors, ["time", "depth", "site"], tmp_path / "new" / "factors.png")
    assert is_png(path)
    shown = [ax for ax in figures[0].axes if ax.axison]
    assert len(shown) == 3 + 1 + 2
    assert [ax.get_xlabel() for ax in shown] == ["time"] * 3 + ["depth"] + ["site"] * 2
    curve = shown[1].lines[0].get_ydata()
    assert np.array_equal(curve, factors[0][1][:, 1].numpy())


def test_maps_share_a_scale_except_for_the_sd(tmp_path, figures):
    observed = np.arange(12.0).reshape(3, 4)
    observed[0, 0] = np.nan
    panels = {"observed": observed, "mean": np.full((3, 4), 20.0), "sd": np.full((3, 4), 0.5)}
    x, y = torch.tensor([0.0, 1.0, 3.0, 4.0]), [10.0, 20.0, 30.0]
    path = plot.plot_maps(panels, x, y, ["x", "y", "level"], tmp_path / "maps.png")
    assert is_png(path)
    meshes = [ax.collections[0] for ax in figures[0].axes[:3]]
    assert [mesh.get_clim() for mesh in meshes] == [(1.0, 20.0), (1.0, 20.0), (0.0, 0.5)]
    assert np.ma.getmaskarray(meshes[0].get_array())[0, 0]
    assert not np.ma.getmaskarray(meshes[1].get_array()).any()


def test_a_map_without_any_value_is_grey(tmp_path):
    panels = {"observed": np.full((2, 2), np.nan)}
    assert is_png(plot.plot_maps(panels, [0, 1], [0, 1], ["x", "y"], tmp_path / "empty.png"))


def test_maps_that_do_not_fit_their_coordinates_are_refused(tmp_path):
    with pytest.raises(ShapeError, match="a row for each y"):
        plot.plot_maps({"mean": np.zeros((3, 2))}, [0, 1, 2], [0, 1], ["x", "y"], tmp_path / "m")


def test_calibration_draws_one_curve_or_several(tmp_path, figures):
    levels = [0.5, 0.9, 0.95]
    assert is_png(plot.plot_calibration(levels, [0.4, 0.8, 0.9], tmp_path / "one.png"))
    several = {"random": [0.5, 0.9, 0.95], "years": torch.tensor([0.4, 0.7, 0.8])}
    path = plot.plot_calibration(levels, several, tmp_path / "two.png", num_points=100)
    assert is_png(path)
    labels = [text.get_text() for text in figures[1].axes[0].get_legend().get_texts()]
    assert labels == ["95 % band", "exact", "random", "years"]


def test_history_draws_exploratory_segments_pale(tmp_path, figures):
    segment = np.array([-2, -2, -2, -1] + [0] * 8)
    objective = np.array([-9, -5, -4, -4.5, -800, -9, -3, -2, -2, -2, -2, -1.9])
    path = plot.plot_history({"objective": objective, "segment": segment}, tmp_path / "elbo.png")
    assert is_png(path)
    search, fit = figures[0].axes
    assert [len(line.get_xdata()) for line in search.lines] == [3, 1]
    assert [len(line.get_xdata()) for line in fit.lines] == [8]
    assert all(line.get_alpha() < 1 for line in search.lines)
    low, high = fit.get_ylim()
    assert -9.0 < low < -3.0
    assert high > -1.9


def test_history_of_a_broken_fit_and_of_none(tmp_path):
    broken = {"objective": np.array([-3.0, -2.0, np.nan])}
    assert is_png(plot.plot_history(broken, tmp_path / "broken.png"))
    assert is_png(plot.plot_history({"objective": np.empty(0)}, tmp_path / "none.png"))


def test_pyplot_is_never_loaded(tmp_path):
    code = (
        "import sys, probkit.plot as p\n"
        f"p.plot_history({{'objective': [1.0, 2.0]}}, {str(tmp_path / 'h.png')!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_missing_matplotlib_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(DependencyError, match=r"probkit\[plot\]"):
        plot.plot_history({"objective": [1.0]}, tmp_path / "h.png")


def test_frames_end_together(tmp_path, figures):
    rows = {"truth": torch.rand(5, 4, 4, generator=GENERATOR), "predicted": torch.zeros(2, 4, 4)}
    assert is_png(plot_frames(rows, tmp_path / "frames.png", first=3))
    (figure,) = figures
    drawn = [bool(ax.images) for ax in figure.axes]
    assert drawn == [True] * 5 + [False] * 3 + [True] * 2
    assert [ax.get_title() for ax in figure.axes[:5]] == ["3", "4", "5", "6", "7"]


def test_a_map_of_either_sign_is_even_about_zero_and_scaled_by_one_panel(tmp_path, figures):
    observed = np.linspace(-2.0, 1.0, 12).reshape(3, 4)
    panels = {"observed": observed, "mean": np.full((3, 4), 9.0)}
    plot.plot_maps(panels, range(4), range(3), ["x", "y"], tmp_path / "m.png", scale="observed")
    low, high = figures[0].axes[1].collections[0].get_clim()
    assert low == -high
    assert 1.9 < high <= 2.0


def test_strongest_components_are_drawn_and_named(tmp_path, figures):
    factors = [factor(9, 3), factor(4, 3)]
    order = [[2, 0], [1]]
    plot.plot_factors(factors, ["t", "d"], tmp_path / "f.png", order=order, dates=["t"])
    shown = [ax.get_title() for ax in figures[0].axes if ax.axison]
    assert shown == ["t, component 3", "t, component 1", "d, component 2"]


def test_cells_without_data_are_unknown():
    axis = torch.arange(4.0)
    grid = torch.cartesian_prod(axis, axis)
    known = known_places(axis, axis, grid[:-2])
    assert known.sum() == 14 and not known[3, 2:].any()
    scattered = torch.rand(60, 2, generator=torch.Generator().manual_seed(1))
    scattered = scattered[(scattered - 0.7).abs().amax(1) > 0.28]
    rows, columns = (torch.unique(part) for part in torch.cat([scattered, torch.ones(1, 2)]).T)
    known = known_places(rows, columns, scattered)
    i, j = (int((part - 0.7).abs().argmin()) for part in (rows, columns))
    assert not known[i, j]
    assert known.mean() > 0.5
