"""What ``FunctionalTucker`` takes: units of any size, columns by name, levels, seeds and files."""

import numpy as np
import pytest
import torch

from probkit.errors import (
    CheckpointError,
    ConfigurationError,
    DataError,
    DtypeError,
    FitWarning,
    ShapeError,
)
from probkit.fractional import HurstModel
from probkit.infer import CAVI, SVI
from probkit.statespace.fractional_noise import sample_fgn
from probkit.tensor import FunctionalTucker
from probkit.tensor.entries import grid_of
from probkit.tensor.validation import MAX_CORE, check_ranks, target_scale

F64 = {"dtype": torch.float64}
GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(60, 2, generator=GENERATOR, **F64).mul(6).round() / 6
Y = torch.sin(4 * X[:, 0]) * X[:, 1] + 0.05 * torch.randn(60, generator=GENERATOR, **F64)


def fitted(x=X, y=Y, **settings):
    settings = {"rank": 1, "num_starts": 1, "engine": CAVI(max_sweeps=5), **settings}
    return FunctionalTucker(**settings).fit(x, y)


@pytest.fixture(scope="module")
def model():
    return fitted()


@pytest.mark.parametrize("unit", [1e200, 1e-200, 1e-300])
def test_units_whose_squares_are_no_numbers(model, unit):
    wanted = model.predict(X, return_sd=True)
    for found, value in zip(fitted(y=Y * unit).predict(X, return_sd=True), wanted, strict=True):
        torch.testing.assert_close(found / unit, value, rtol=1e-9, atol=1e-9)


def test_a_spread_beyond_float64_is_an_error():
    for values in ([0.0, 5e-324], [-1.7e308, 1.7e308]):
        with pytest.raises(DataError, match="spread"):
            target_scale(torch.tensor(values, **F64))


@pytest.mark.parametrize("value", [0.1, 273.15])
def test_a_constant_whose_rounded_sd_is_not_zero_is_constant(value):
    with pytest.warns(FitWarning, match="constant"):
        sd = fitted(y=torch.full((60,), value, **F64)).predict(X, return_sd=True)[1]
    assert float(sd.min()) > 1e-3


def test_columns_of_frames_go_by_name(tmp_path):
    import pandas as pd

    frame = pd.DataFrame(X.numpy(), columns=["a", "b"])
    model = fitted(frame)
    wanted, turned = model.predict(frame), frame[["b", "a"]].assign(c=0.0)
    score = model.score(frame, Y)
    for one in (model, FunctionalTucker.load(model.save(tmp_path))):
        np.testing.assert_array_equal(one.predict(turned), wanted)
        np.testing.assert_array_equal(one.predict(X.numpy()), wanted)  # arrays by position
        assert one.score(turned, Y) == score
        for call in (one.predict, lambda x, m=one: m.score(x, Y), lambda x, m=one: m.update(x, Y)):
            with pytest.raises(DataError, match="no column 'b'"):
                call(frame.rename(columns={"b": "d"}))
    with pytest.raises(DataError, match="same name"):
        model.predict(frame.set_axis(["a", "a"], axis=1))
    named = fitted(frame, input_names=["p", "q"])
    np.testing.assert_array_equal(named.predict(frame.set_axis(["u", "v"], axis=1)), wanted)
    with pytest.raises(ShapeError, match="columns"):
        named.predict(turned)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"input_names": ["a"]}, "input_names"),
        ({"rank": 1.5}, "rank"),
        ({"rank": ["a", "b"]}, "rank"),
        ({"num_starts": 0}, "num_starts"),
        ({"max_rank": 1.5}, "max_rank"),
        ({"engine": "gibbs"}, "engine: got 'gibbs'"),
        ({"engine": SVI()}, "engine: got SVI"),
        ({"rank": np.array([1.5, 1.0])}, "rank"),
        *[
            ({"input_names": names}, "input_names: got")
            for names in (
                ["a", "a"],
                ["a", ""],
                ["a", 1],
                "ab",
                ["a", "a_component"],
                ["a_component", "a"],
                [".", "a"],
            )
        ],
    ],
)
def test_wrong_settings_are_named(settings, words):
    with pytest.raises(ConfigurationError, match=words):
        fitted(**settings)


def test_wrong_requests_are_named(model):
    with pytest.raises(ConfigurationError, match="quantiles"):
        model.predict(X, quantiles=[2.0])
    with pytest.raises(ConfigurationError, match="quantiles"):
        model.result_.predict(X, quantiles=[1.0])
    for levels in ((), "0.5"):
        with pytest.raises(ConfigurationError, match="quantiles"):
            model.predict(X, quantiles=levels)
    with pytest.raises(ConfigurationError, match="q: got 1.5"):
        model.result_.posterior.quantile(1.5)
    one = model.predict(X, quantiles=0.5)["quantiles"]
    assert torch.equal(one, model.predict(X, quantiles=[0.5])["quantiles"])
    with pytest.raises(ConfigurationError, match="num_samples"):
        model.predict(X, num_samples=0)
    new = FunctionalTucker()
    for call in (new.to_datatree, lambda: new.score(X, Y), lambda: new.update(X, Y)):
        with pytest.raises(ConfigurationError, match="not fitted"):
            call()


def test_numbers_of_numpy_are_numbers(tmp_path):
    assert fitted(rank=np.array([1, 1])).rank == [1, 1]
    model = fitted(rank=np.int64(1), num_starts=np.int64(1), seed=np.int64(0))
    assert FunctionalTucker.load(model.save(tmp_path)).rank == 1


def test_a_generator_is_a_seed(tmp_path):
    first = fitted(seed=torch.Generator().manual_seed(3))
    loaded = FunctionalTucker.load(first.save(tmp_path))
    assert loaded.seed == first.seed == first.result_.provenance["seed"]
    generator = torch.Generator().manual_seed(1)
    draws = first.predict(X, num_samples=2, seed=generator)["samples"]
    assert torch.equal(first.predict(X, num_samples=2, seed=1)["samples"], draws)
    again = first.fit(X, Y)  # from the same starts
    assert torch.equal(again.predict(X, num_samples=2, seed=1)["samples"], draws)


def test_missing_targets_of_updates_are_kept(tmp_path):
    gaps = torch.where(torch.arange(60) < 3, torch.nan, Y)
    model = fitted(y=gaps).update(X, gaps)
    assert model.num_missing_ == 6
    assert FunctionalTucker.load(model.save(tmp_path)).num_missing_ == 6


def test_results_of_other_families_are_refused(tmp_path):
    y = sample_fgn(0.3, 30, 1, seed=0)[0]
    HurstModel("increments", noise=False, grid_size=11, num_samples=10).fit(y).save(tmp_path)
    with pytest.raises(CheckpointError, match="HurstPosterior"):
        FunctionalTucker.load(tmp_path)


def test_the_data_tree_has_draws_of_the_factors(model):
    tree = model.to_datatree(num_samples=7)
    assert tree["posterior"]["core"].sizes["draw"] == 7


def test_the_largest_core_is_the_one_that_is_said():
    assert str(MAX_CORE) == (check_ranks.__doc__ or "").split("(")[1].split(")")[0].replace(" ", "")


def test_a_summary_has_every_unknown_with_its_interval(model):
    assert "intercept" in model.result_.summary(num_rows=1000)
    quantiles = model.result_.posterior.quantile([0.05, 0.95])
    for name, low in model.result_.posterior.quantile(0.05).items():
        torch.testing.assert_close(quantiles[name][0], low)


def test_one_row_is_no_table():
    with pytest.raises(DataError, match="at least two"):
        fitted(X[:1], Y[:1])


def test_columns_of_any_name_are_saved(tmp_path):
    import pandas as pd

    frame = pd.DataFrame({"km/h": X[:, 0], "draw": X[:, 1]})
    fitted(frame).save(tmp_path)
    loaded = FunctionalTucker.load(tmp_path)
    assert loaded.input_names_ == ["km/h", "draw"]
    assert {"km.h", "draw_"} <= set(loaded.to_datatree()["posterior"].dims)


def test_a_text_target_is_named_as_such():
    with pytest.raises(DtypeError, match="Text cannot be a target .*y: got"):
        fitted(y=np.array(["a"] * 60))


def test_a_grid_is_merged_on_the_device_of_its_column():
    column = torch.tensor([0.0, 1e-12, 1.0], **F64)
    with torch.device("meta"):  # where everything lands that is made without a device
        grid, rows = grid_of(column)
    assert (grid.tolist(), rows.tolist()) == ([0.0, 1.0], [0, 0, 1])
