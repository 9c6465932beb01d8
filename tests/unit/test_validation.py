"""The checks at the door that all families share."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from probkit.errors import ConfigurationError, DataError, DtypeError
from probkit.infer import CAVI, EM, HMC, MAP, NUTS, SVI, DrawsPosterior, GaussNewton, Gibbs, Laplace
from probkit.pde.posterior import normal_quantiles
from probkit.random import as_generator, fixed_seed
from probkit.sparse import KroneckerSBL, simulate_recovery
from probkit.tensor.simulate import simulate_functional_tucker
from probkit.tensor.validation import to_inputs, to_target
from probkit.validation import (
    as_real,
    as_tensor,
    as_times,
    check_choice,
    check_finite,
    check_levels,
    check_positive,
    check_quantile,
    check_whole,
    unknown,
)


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, True, "1", None, 1j])
def test_no_positive_number(value):
    with pytest.raises(ConfigurationError, match="width: got .*expected > 0"):
        check_positive("width", value)


@pytest.mark.parametrize("value", [0, 7, 2.0, True, "3"])
def test_no_whole_number_of_a_range(value):
    with pytest.raises(ConfigurationError, match=r"size: got .*expected \[1, 6\]"):
        check_whole("size", value, 1, 6)


def test_good_numbers_pass():
    assert check_positive("width", np.float64(2.5)) == 2.5
    assert check_positive("width", np.float32(2.5)) == 2.5
    assert type(check_whole("size", np.int64(6), 1, 6, even=True)) is int
    with pytest.raises(ConfigurationError, match="an even integer"):
        check_whole("size", 5, 1, 6, even=True)


@pytest.mark.parametrize("value", [0, 1, 2.0, -0.1, math.nan, True, "0.5"])
def test_no_level_of_a_quantile(value):
    assert check_levels("quantiles", (0.5, np.float32(0.25))) == (0.5, 0.25)
    with pytest.raises(ConfigurationError, match="quantiles: got .*between 0 and 1"):
        check_levels("quantiles", (0.5, value))


def test_read_only_and_big_endian_arrays_are_copied_and_others_are_not():
    own = np.arange(6.0).reshape(2, 3)
    assert as_tensor(own, "y").data_ptr() == own.ctypes.data
    for array in (own.astype(">f8"), np.broadcast_to(own, (1, 2, 3))[0]):
        found = as_tensor(array, "y")
        assert torch.equal(found, torch.from_numpy(own)) and found.data_ptr() != own.ctypes.data


def test_choices_are_named_in_the_error():
    assert check_choice("order", "order", "F", {"C": 1, "F": 2}) == "F"
    with pytest.raises(ConfigurationError, match="Unknown order .*got 'A', expected one of C, F"):
        check_choice("order", "order", "A", ("C", "F"))
    assert "one of 1, 2" in str(unknown("number", "n", 3, (k for k in (1, 2))))


def test_arrays_keep_dtype_shape_and_values():
    backwards = np.arange(6.0, dtype=np.float32).reshape(2, 3)[:, ::-1]
    found = as_tensor(backwards, "y")
    assert found.dtype == torch.float32
    assert found.tolist() == backwards.tolist()
    assert as_tensor(np.float64(2.0), "y").shape == ()
    tensor = torch.ones(2, requires_grad=True)
    assert not as_tensor(tensor, "y").requires_grad
    assert as_tensor(np.array([1j]), "y").is_complex()


@pytest.mark.parametrize(
    "value", [["a"], [object()], np.array(["2020-01-01"], "M8[D]"), [[1], [1, 2]]]
)
def test_what_is_no_array_of_numbers(value):
    with pytest.raises(DtypeError, match="Not an array of numbers .*y"):
        as_tensor(value, "y")


def test_complex_is_not_real():
    with pytest.raises(DtypeError, match="real numbers"):
        as_real(np.array([1j]), "y")


def test_the_first_bad_value_is_located():
    values = torch.zeros(2, 3)
    assert check_finite(values, "y") is values
    values[1, 2] = math.inf
    with pytest.raises(DataError, match=r"1 value is.*first at \[1, 2\] \(y.*Remedy: drop it"):
        check_finite(values, "y", remedy="drop it")


def test_masked_values_are_missing():
    for dtype in (np.float32, np.float64):
        values = np.ma.masked_array([1.0, 99999.0], mask=[False, True], dtype=dtype)
        for given in (values, [values, values]):
            found = as_tensor(given, "y")
            assert found.dtype == as_tensor(values.data, "y").dtype
            assert found[..., 1].isnan().all() and not found[..., 0].isnan().any()
    whole = np.ma.masked_array([1, 99999], mask=[False, True])
    with pytest.raises(DataError, match="1 are masked .*y: got int64"):
        as_tensor(whole, "y")
    assert as_tensor(np.ma.masked_array([1, 2]), "y").tolist() == [1, 2]
    assert as_times(whole, "t").isnan().tolist() == [False, True]
    dates = np.ma.masked_array(np.array(["1970-01-02", "1970-01-03"], "M8[D]"), mask=[0, 1])
    assert as_times(dates, "t")[0] == 1.0 and as_times(dates, "t")[1].isnan()


def test_masked_targets_and_coordinates_are_missing():
    y = np.ma.masked_array([1.0, 99999.0], mask=[False, True])
    for target in (y, y.astype(int), y[:, None]):
        value, observed = to_target(target, 2, "drop")
        assert observed.tolist() == [True, False] and value[1].isnan()
    with pytest.raises(DataError, match="1 NaN"):
        to_inputs(np.ma.column_stack([y, [0.0, 1.0]]))


@pytest.mark.parametrize(
    ("engine", "settings"),
    [
        *[(SVI, {"steps": value}) for value in ("100", 100.5, True, 0, None)],
        *[(SVI, {name: 2.5}) for name in ("window", "patience", "batch_size", "max_retries")],
        *[(SVI, {"learning_rate": value}) for value in ("0.1", math.inf, math.nan, 1j)],
        *[(SVI, {name: "1"}) for name in ("weight_decay", "max_seconds", "clip_norm")],
        *[(NUTS, {"num_samples": value}) for value in ("3", 3.5)],
        (NUTS, {"num_warmup": -1}),
        (HMC, {"num_warmup": 1.5}),
        (HMC, {"num_chains": "many"}),
        (Gibbs, {"thinning": 1.5}),
        (MAP, {"max_steps": "9"}),
        (EM, {"patience": 1.5}),
        (CAVI, {"max_sweeps": 1e3}),
        (Laplace, {"num_diagnostic_samples": 0.5}),
        (GaussNewton, {"tolerance": "1"}),
    ],
)
def test_wrong_settings_of_engines_are_named(engine, settings):
    (name,) = settings
    with pytest.raises(ConfigurationError, match=rf"must .*\({name}: got .*expected "):
        engine(**settings)


def test_good_settings_of_engines_pass():
    assert SVI(steps=np.int64(3), learning_rate=np.float32(0.5), max_retries=0).steps == 3
    assert HMC(num_chains="auto", num_warmup=0).num_chains == "auto"


def test_one_number_is_one_level_and_none_is_an_error():
    assert check_levels("q", 0.5) == check_levels("q", torch.tensor(0.5)) == (0.5,)
    assert check_levels("q", np.array([0.25, 0.5])) == (0.25, 0.5)
    assert check_quantile("q", 0.5) == check_quantile("q", np.array(0.5)) == 0.5
    assert check_quantile("q", [0.5]) == (0.5,)
    for values in ((), None, "0.5", [[0.5]]):
        with pytest.raises(ConfigurationError, match="q: got "):
            check_levels("q", values)
    assert check_levels("q", [0, 1], ends=True) == (0.0, 1.0)
    with pytest.raises(ConfigurationError, match="q: got 1.5, expected from 0 to 1"):
        check_levels("q", 1.5, ends=True)


def test_seeds_of_numpy_are_seeds():
    wanted = as_generator(3).get_state()
    for seed in (np.int64(3), np.uint8(3)):
        assert torch.equal(as_generator(seed).get_state(), wanted)
    assert as_generator(2**64 - 1).initial_seed() == fixed_seed(2**64 - 1) == 2**64 - 1
    for seed in (2**64, -1, np.int64(-1)):
        with pytest.raises(ConfigurationError, match="seed: got .*from 0 to"):
            as_generator(seed)
    for seed in (True, 1.0, "1"):
        with pytest.raises(DtypeError, match="seed"):
            as_generator(seed)


def test_the_record_of_a_fit_has_a_seed_of_numpy():
    def model(y):
        pyro.sample("y", dist.Normal(pyro.sample("m", dist.Normal(0.0, 1.0)), 1.0), obs=y)

    result = SVI(steps=2, num_diagnostic_samples=0).fit(model, torch.tensor(0.5), seed=np.int64(7))
    assert type(result.provenance["seed"]) is int and result.provenance["seed"] == 7


def test_simulations_take_counts_of_numpy():
    problem = simulate_recovery(num_atoms=np.int64(6), num_measurements=(3, 4), num_nonzero=1)
    assert problem.x.shape == (6, 6)
    sizes = {"num_coordinates": (4, 5), "lengthscales": (0.3, 0.3), "generator": 0}
    found = simulate_functional_tucker(20, rank=np.int64(2), **sizes)
    assert torch.equal(found.y, simulate_functional_tucker(20, rank=2, **sizes).y)


def test_levels_beyond_the_ends_are_refused_by_every_posterior():
    draws = DrawsPosterior({"x": torch.arange(6.0).reshape(1, 6)})
    assert draws.quantile([0.0, 1.0])["x"].tolist() == [0.0, 5.0]
    problem = simulate_recovery(num_atoms=3, num_measurements=(2, 2), num_nonzero=1, seed=1)
    sparse = KroneckerSBL().fit(problem.y, problem.dictionaries).result_
    for call in (draws.quantile, sparse.posterior.quantile, sparse.posterior.interval):
        for level in (1.5, "0.5"):
            with pytest.raises(ConfigurationError, match="got .*expected"):
                call(level)
    with pytest.raises(ConfigurationError, match="q: got 1.5"):
        normal_quantiles(torch.zeros(2), torch.ones(2), [0.5, 1.5])
