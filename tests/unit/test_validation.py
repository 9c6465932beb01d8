"""The checks at the door that all families share."""

import math

import numpy as np
import pytest
import torch

from probkit.errors import ConfigurationError, DataError, DtypeError
from probkit.tensor.validation import to_inputs, to_target
from probkit.validation import (
    as_real,
    as_tensor,
    as_times,
    check_choice,
    check_finite,
    check_levels,
    check_positive,
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
