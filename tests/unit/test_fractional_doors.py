"""What ``HurstModel`` and ``TimeVaryingHurst`` take: values, dates, sizes, seeds and files."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from probkit.errors import CheckpointError, ConfigurationError, DataError, DtypeError
from probkit.fractional import HurstEncoder, HurstModel, TimeVaryingHurst, prepare_series
from probkit.pde import InverseSolution, PDESolution
from probkit.statespace.fractional_noise import sample_fgn

NOISE = sample_fgn(0.3, 60, 1, seed=0)[0]
LEVELS = NOISE.cumsum(0)
DAYS = np.datetime64("2020-01-01") + np.arange(60)
QUICK = {"noise": False, "grid_size": 11, "num_samples": 50}
BRIEF = {
    **{"noise": False, "num_knots": 4, "num_samples": 20},
    **{"num_diagnostic_samples": 5, "max_rounds": 1},
}


def fitted(y=LEVELS, times=None, **settings):
    return HurstModel("levels", **{**QUICK, **settings}).fit(y, times)


def fit_varying(y=LEVELS, times=None, **settings):
    return TimeVaryingHurst("levels", **{**BRIEF, **settings}).fit(y, times)


@pytest.fixture(scope="module")
def model():
    return fitted()


@pytest.fixture(scope="module")
def varying():
    return fit_varying(times=DAYS, seed=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("fit", [fitted, fit_varying])
@pytest.mark.parametrize("y", [LEVELS + 0j, ["a"] * 60, DAYS], ids=["complex", "text", "dates"])
def test_values_are_real_numbers(fit, y):
    with pytest.raises(DtypeError, match="y"):
        fit(y)


@pytest.mark.parametrize("fit", [fitted, fit_varying])
@pytest.mark.parametrize("unit", [1e160, 1e-200])
def test_values_whose_squares_are_no_numbers_are_an_error(fit, unit):
    with pytest.raises(DataError, match="another unit"):
        fit(LEVELS * unit)


@pytest.mark.parametrize("unit", [1e140, 1e-140])
def test_large_and_small_units_do_not_matter(model, unit):
    found = fitted(LEVELS * unit).predict([60.0])["sd"] / unit
    torch.testing.assert_close(found, model.predict([60.0])["sd"])


def test_a_fit_keeps_its_own_copy_of_the_values():
    mine = LEVELS.numpy().copy()
    series, model = prepare_series(torch.as_tensor(mine), None, "levels"), fitted(mine)
    before = model.compare(0.5)
    mine[:] = 50.0
    assert torch.equal(model.compare(0.5), before)
    assert torch.equal(series.first, LEVELS[:1])


def test_a_tensor_with_a_gradient_is_taken_without_it(model):
    found = fitted(LEVELS.clone().requires_grad_()).result_.posterior.mean()["hurst"]
    assert torch.equal(found, model.result_.posterior.mean()["hurst"])


@pytest.mark.parametrize("unit", ["D", "ns"])
def test_dates_are_days(model, unit):
    dated = fitted(times=DAYS.astype(f"datetime64[{unit}]"))
    assert dated.series_.step == 1.0
    next_day = DAYS[-1:] + 1
    torch.testing.assert_close(dated.predict(next_day)["mean"], model.predict([60.0])["mean"])
    draws = dated.result_.posterior.draws["scale"]
    torch.testing.assert_close(draws, model.result_.posterior.draws["scale"])


@pytest.mark.parametrize("name", ["grid_size", "num_samples"])
@pytest.mark.parametrize("value", [0, 1, 20.5])
def test_sizes_that_give_no_posterior_are_errors(name, value):
    with pytest.raises(ConfigurationError, match=name):
        HurstModel("levels", **{name: value})


def test_wrong_requests_are_named(model, varying):
    with pytest.raises(ConfigurationError, match="quantiles"):
        model.predict([60.0], quantiles=(2.0,))
    with pytest.raises(ConfigurationError, match="num_samples"):
        model.sample([60.0], num_samples=0)
    with pytest.raises(ConfigurationError, match="quantiles"):
        varying.predict(DAYS[3:5], quantiles=(0.0,))
    new = TimeVaryingHurst("levels")
    calls = [lambda: new.predict([1.0]), lambda: new.sample([1.0]), lambda: new.save("nowhere")]
    for call in (*calls, new.compare, new.to_datatree, lambda: new.plot("nowhere.png")):
        with pytest.raises(ConfigurationError, match="not fitted"):
            call()


def test_a_generator_is_a_seed(tmp_path):
    model = fitted(seed=torch.Generator().manual_seed(0))
    first = model.result_.posterior.draws["hurst"]
    assert torch.equal(model.fit(LEVELS).result_.posterior.draws["hurst"], first)
    loaded = HurstModel.load(model.save(tmp_path))
    assert loaded.seed == model.seed == loaded.result_.provenance["seed"]


def test_a_time_varying_fit_is_loaded_without_its_data(varying, tmp_path):
    loaded = TimeVaryingHurst.load(varying.save(tmp_path / "fit"))
    assert (loaded.num_knots, loaded.seed) == (4, varying.seed)
    for name, value in varying.predict(DAYS[3:7]).items():
        assert torch.equal(loaded.predict(DAYS[3:7])[name], value)
    drawn = loaded.sample(DAYS[3:7], num_samples=500, seed=2)
    assert drawn.shape == (500, 4)
    mean = varying.predict(DAYS[3:7])["mean"]
    torch.testing.assert_close(drawn.mean(0), mean, rtol=0, atol=0.05)
    tree = loaded.to_datatree()
    assert tree["posterior"]["hurst"].sizes["time"] == len(varying.times_)
    assert loaded.plot(tmp_path / "hurst.png").stat().st_size > 1000
    with pytest.raises(ConfigurationError, match="data"):
        loaded.compare()
    with pytest.raises(CheckpointError, match="TimeVaryingPosterior"):
        HurstModel.load(tmp_path / "fit")


def test_results_of_another_model_are_refused(model, tmp_path):
    with pytest.raises(CheckpointError, match="HurstPosterior"):
        TimeVaryingHurst.load(model.save(tmp_path))


@pytest.mark.parametrize("slope", [1.0, 0.1])
def test_a_straight_line_has_no_roughness(slope):
    with pytest.raises(DataError, match="increments do not vary"):
        fit_varying(slope * torch.arange(60.0, dtype=torch.float64))


def test_empty_requests_are_named(model, varying):
    for fit in (model, varying):
        with pytest.raises(ConfigurationError, match="times"):
            fit.predict([])
    for fit, times in ((model, [60.0]), (varying, DAYS[3:5])):
        with pytest.raises(ConfigurationError, match="quantiles"):
            fit.predict(times, quantiles=())


def test_kinds_and_engines_are_known_ones():
    with pytest.raises(ConfigurationError, match=r"engine.*NUTS\(\)"):
        HurstModel("levels", engine="nuts")
    for make in (HurstModel, lambda kind: HurstEncoder(kind, 64)):
        with pytest.raises(ConfigurationError, match="one of levels, increments"):
            make("level")
    with pytest.raises(ConfigurationError, match="length"):
        HurstEncoder("levels", 64.5)


def test_files_of_something_else_are_no_encoder(tmp_path):
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(2)}, str(other))
    text = tmp_path / "text.safetensors"
    text.write_text("no tensors here")
    for path in (other, text, tmp_path / "nothing"):
        with pytest.raises(ConfigurationError, match="holds no encoder"):
            HurstEncoder.load(path)
    made = HurstEncoder("levels", 64)
    made.save(tmp_path / "encoder.safetensors")
    assert HurstEncoder.load(tmp_path / "encoder.safetensors").length == 64


def test_solutions_refuse_the_results_of_other_models(model, tmp_path):
    model.save(tmp_path)
    for kind in (PDESolution, InverseSolution):
        with pytest.raises(CheckpointError, match="another model"):
            kind.load(tmp_path)
