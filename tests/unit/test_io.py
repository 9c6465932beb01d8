"""Tables from files: formats, kinds of columns, what is missing, what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from probkit.datasets import DATASETS, holdout, load_dataset
from probkit.errors import ConfigurationError, DataError
from probkit.io import ROW, read_series, read_table, table_from_frame, write_table
from probkit.tensor.validation import to_inputs
from probkit.validation import as_times


def _frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "site": ["b", "a", "b", "c"],
            "date": ["2020-01-01", "2020-01-02", "2020-01-04", "2020-01-08"],
            "depth": [1.0, 2.0, 3.0, 4.0],
            "value": [0.5, np.nan, 1.5, 2.5],
        }
    )


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_kinds_of_columns(tmp_path, suffix):
    path = tmp_path / f"t.{suffix}"
    _frame().to_csv(path, index=False) if suffix == "csv" else _frame().to_parquet(path)
    table = read_table(path)
    assert table.inputs == ("site", "date", "depth")
    assert table.kinds == ("category", "datetime", "numeric")
    assert table.levels["site"] == ("a", "b", "c")
    assert table.num_missing == 1
    assert table.x[:, 0].tolist() == [1.0, 1.0, 2.0]
    assert (table.x[:, 1] - table.x[0, 1]).tolist() == [0.0, 3.0, 7.0]
    assert table.y.tolist() == [0.5, 1.5, 2.5]


def test_gridded_netcdf_with_dates(tmp_path):
    values = np.arange(24.0).reshape(2, 3, 4)
    values[1, 2, 3] = np.nan
    times = pd.date_range("2000-01-01", periods=2)
    xr.DataArray(
        values,
        dims=("time", "lat", "lon"),
        coords={"time": times, "lat": [0, 1, 2], "lon": [0, 1, 2, 3]},
        name="t2m",
    ).to_dataset().to_netcdf(tmp_path / "g.nc", engine="h5netcdf")
    table = read_table(tmp_path / "g.nc")
    assert table.inputs == ("time", "lat", "lon")
    assert table.kinds[0] == "datetime"
    assert (table.y.shape[0], table.num_missing) == (23, 1)
    assert table.target == "t2m"


def test_what_is_refused(tmp_path):
    frame = _frame()
    with pytest.raises(DataError, match=r"no column 'nope'.*depth"):
        table_from_frame(frame, target="nope")
    frame.loc[2, "depth"] = np.nan
    with pytest.raises(DataError, match=r"'depth'.*data rows \[3\]"):
        table_from_frame(frame, target="value")
    with pytest.raises(DataError, match="no such file"):
        read_table(tmp_path / "absent.csv")
    (tmp_path / "t.xlsx").write_text("x")
    with pytest.raises(DataError, match="xlsx"):
        read_table(tmp_path / "t.xlsx")
    frame = _frame().assign(value=["1", "two", "3", "4"])
    with pytest.raises(DataError, match="two"):
        table_from_frame(frame, target="value")
    with pytest.raises(DataError, match="sst"):
        load_dataset("nope")


def test_write_and_read_back(tmp_path):
    path = write_table(tmp_path / "o.csv", {"a": [1.0, 2.0], "y": [3.0, 4.0]})
    assert torch.equal(read_table(path).y, torch.tensor([3.0, 4.0]).double())


def test_bundled_data_and_hold_out():
    assert set(DATASETS) >= {"sst", "kinetic", "il2", "indian_pines", "elnino"}
    table = load_dataset("sst")
    assert (table.y.shape[0], table.num_missing) == (22500, 4500)
    mask, labels = holdout(table, whole={"time": 2}, seed=1)
    again, _ = holdout(table, whole={"time": 2}, seed=1)
    assert torch.equal(mask, again)
    hidden = torch.tensor([label == "whole time" for label in labels])
    years = torch.unique(table.x[hidden, 0])
    assert len(years) == 2
    assert bool(mask[torch.isin(table.x[:, 0], years)].all())
    assert labels.count("random") == round(0.1 * (22500 - int(hidden.sum())))
    with pytest.raises(DataError, match="fraction"):
        holdout(table, fraction=1.5)
    for number in (-1, 1.5, "2"):
        with pytest.raises(ConfigurationError, match=r"whole\['time'\]: got"):
            holdout(table, whole={"time": number})


def test_a_stray_word_among_numbers_is_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b,y\n1,2,3\n2,oops,4\n3,4,5\n")
    with pytest.raises(DataError, match=r"'b' mixes numbers and text .*rows \[2\]: \['oops'\]"):
        read_table(path)


def test_names_go_by_the_levels_of_an_earlier_table(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,y\n02,1\n1,2\n")
    known = {"a": ("1", "x", "02")}
    table = read_table(path, needs_target=False, inputs=["a"], levels=known)
    assert (table.x[:, 0].tolist(), table.kinds, table.levels) == ([2.0, 0.0], ("category",), known)
    with pytest.raises(DataError, match=r"'a' has 1 names .*rows \[2\]: \['1'\].*one of 02, x"):
        read_table(path, levels={"a": ("02", "x")})
    path.write_text("a,y\n02,1\n,2\n")
    with pytest.raises(DataError, match=r"'a' has 1 missing"):
        read_table(path, levels=known)


def test_columns_that_have_no_meaning_are_refused(tmp_path):
    frame = pd.DataFrame([[1.0, 2.0, 3.0]] * 3, columns=["a", "a", "y"])
    with pytest.raises(DataError, match="two columns named 'a'"):
        table_from_frame(frame, target="y")
    good = {"a": [1.0, 2.0], "y": [1.0, 2.0]}
    for name in good:
        with pytest.raises(DataError, match=f"'{name}' holds complex"):
            table_from_frame(pd.DataFrame({**good, name: [1j, 2.0]}), target="y")
    for values in (["2020-01-01", "2020-01-02"], [pd.Timestamp("2020-01-01", tz="UTC"), None]):
        frame = pd.DataFrame({"a": [1.0, 2.0], "y": pd.to_datetime(values)})
        with pytest.raises(DataError, match="'y' holds dates"):
            table_from_frame(frame, target="y")
    with pytest.raises(DataError, match="'y' holds dates or durations"):
        table_from_frame(frame.assign(y=pd.to_timedelta([1, 2], unit="s")), target="y")
    (tmp_path / "one.csv").write_text("t\n1\n")
    with pytest.raises(DataError, match="no column of values .*besides the times 't'"):
        read_series(tmp_path / "one.csv", time="t")


def test_a_series_may_have_a_column_named_as_the_row_numbers(tmp_path):
    (tmp_path / "t.csv").write_text(f"{ROW}\n5\n7\n")
    table = read_series(tmp_path / "t.csv")
    assert table.y.tolist() == [5.0, 7.0]
    assert table.x[:, 0].tolist() == [0.0, 1.0]


EAST = timezone(timedelta(hours=12))
MOMENTS = [datetime(2020, 1, 2), datetime(2020, 1, 3, 12)]


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(MOMENTS),
        pd.Series(MOMENTS).dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo"),
        pd.Series(MOMENTS, dtype=object),
        pd.Series([m.replace(tzinfo=UTC).astimezone(EAST) for m in MOMENTS], dtype=object),
        pd.Series(["2020-01-02T12:00+12:00", "2020-01-04T00:00+12:00"]),
        pd.Series(pd.PeriodIndex(["2020-01-02 00:00", "2020-01-03 12:00"], freq="h")),
    ],
)
def test_dates_of_any_kind_are_days_in_universal_time(column):
    wanted = [18263.0, 18264.5]
    table = table_from_frame(pd.DataFrame({"t": column, "y": [1.0, 2.0]}), target="y")
    assert (table.x[:, 0].tolist(), table.kinds) == (wanted, ("datetime",))
    if column.dtype != "str":
        assert as_times(column, "t").tolist() == wanted
        assert as_times(column.tolist(), "t").tolist() == wanted
        x, _ = to_inputs(pd.DataFrame({"t": column, "a": [0.0, 1.0]}))
        assert x[:, 0].tolist() == wanted


def test_a_missing_date_is_named():
    for first in (MOMENTS[0].date(), None):
        frame = pd.DataFrame({"t": pd.Series([first, MOMENTS[1].date(), None], dtype=object)})
        with pytest.raises(DataError, match="'t' has . missing"):
            table_from_frame(frame.assign(y=1.0), target="y")
        assert as_times(frame["t"], "t").isnan().tolist() == [first is None, False, True]


def test_durations_are_days_whatever_the_unit_of_their_storage():
    for unit in ("s", "ms", "ns"):
        gaps = np.array([0, 129600], "m8[s]").astype(f"m8[{unit}]")
        frame = pd.DataFrame({"t": gaps, "a": [0.0, 1.0]})
        assert to_inputs(frame)[0][:, 0].tolist() == [0.0, 1.5]
        table = table_from_frame(frame.rename(columns={"a": "y"}), target="y")
        assert (table.x[:, 0].tolist(), table.kinds) == ([0.0, 1.5], ("numeric",))
        frame.loc[1, "t"] = pd.NaT
        with pytest.raises(DataError, match="'t' has 1 NaN"):
            to_inputs(frame)
        with pytest.raises(DataError, match="'t' has 1 missing"):
            table_from_frame(frame.rename(columns={"a": "y"}), target="y")
