"""Tables from files: formats, kinds of columns, what is missing, what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from probkit.datasets import DATASETS, holdout, load_dataset
from probkit.errors import DataError
from probkit.io import read_table, table_from_frame, write_table


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


def test_a_stray_word_among_numbers_is_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b,y\n1,2,3\n2,oops,4\n3,4,5\n")
    with pytest.raises(DataError, match=r"'b' mixes numbers and text .*rows \[2\]: \['oops'\]"):
        read_table(path)
