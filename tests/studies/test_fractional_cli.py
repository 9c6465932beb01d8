"""``probkit fractional hurst`` as a user calls it."""

import json
import subprocess
import sys

import numpy as np
import pytest

from probkit.errors import ConfigurationError, DataError
from probkit.fractional.study import HurstStudy, load_series, redraw
from probkit.statespace.fractional_noise import sample_fgn


@pytest.fixture
def table(tmp_path):
    """A rough path of 120 days with a missing value and a missing day."""
    path = sample_fgn(0.3, 120, 1, seed=1)[0].cumsum(0)
    days = np.arange("2020-01-01", "2020-04-30", dtype="datetime64[D]")
    rows = [f"{day},{level:.6f}" for day, level in zip(days, path.tolist(), strict=True)]
    rows[40] = f"{days[40]},"
    del rows[70]
    file = tmp_path / "path.csv"
    file.write_text("\n".join(["when,level", *rows]) + "\n")
    return file


def test_hurst_of_a_file(table, tmp_path):
    out = tmp_path / "out"
    code = "from probkit.cli.main import main; main()"
    arguments = [str(table), "--column", "level", "--time", "when", "--kind", "levels"]
    arguments += ["--horizon", "3", "--smoke", "--out", str(out)]
    command = [sys.executable, "-c", code, "fractional", "hurst", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "1 missing; times: when, unit of time: day" in done.stdout
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    hurst = report["estimates"]["hurst"]
    assert hurst["5 %"] < 0.3 < hurst["95 %"]
    assert report["data"]["missing"] == 1
    assert report["data"]["step"] == 1.0
    assert "noise against none" in str(report["diagnostics"])
    assert (out / "forecast.csv").read_text().splitlines()[1].startswith("2020-04-30")
    names = {path.name for path in (out / "figures").iterdir()}
    assert names == {"forecast.png", "posterior.png", "variogram.png"}
    assert [path.name for path in redraw(out).values()] == ["posterior.png"]
    assert {"manifest.json", "posterior.nc"} <= {path.name for path in out.iterdir()}


def test_a_study_starts_with_an_empty_directory(table, tmp_path):
    with pytest.raises(ConfigurationError, match="not empty"):
        next(HurstStudy(str(table), table.parent, "levels").run())
    with pytest.raises(ConfigurationError, match="--horizon"):
        next(HurstStudy(str(table), tmp_path / "out", "levels", horizon=0).run())


def test_series_by_name():
    volatility = load_series("sp500_volatility")
    assert (volatility.target, volatility.inputs) == ("log_volatility", ("trading_day",))
    assert len(volatility.y) == 5031
    vix = load_series("vix", time="date")
    assert vix.kinds == ("datetime",)
    assert (len(vix.y), int(vix.y.isnan().sum())) == (1305, 46)
    assert load_series("nile").x[0, 0] == 1871
    with pytest.raises(DataError, match="one of trading_day"):
        load_series("vix", time="hour")


def test_columns_of_a_file(table):
    rows = load_series(str(table))
    assert (rows.target, rows.inputs, len(rows.y)) == ("level", ("row number",), 119)
    assert load_series(str(table), time="when").x.diff(dim=0).unique().tolist() == [1.0, 2.0]
    with pytest.raises(DataError, match="no column 'lvel'"):
        load_series(str(table), column="lvel")
    table.write_text("when,level\nspring,1\nsummer,2\n")
    with pytest.raises(DataError, match="neither numbers nor dates"):
        load_series(str(table), time="when")
    with pytest.raises(DataError, match="no such data set or file"):
        load_series("sp5000")


def test_the_mean_of_increments_is_subtracted_on_request(tmp_path):
    study = HurstStudy("nile", tmp_path / "out", "increments", noise=False, center=True, smoke=True)
    list(study.run())
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert 0.7 < report["estimates"]["hurst"]["mean"] < 0.9
    assert report["diagnostics"]["warnings"] == []
    first = (tmp_path / "out" / "forecast.csv").read_text().splitlines()[1].split(",")
    assert 600 < float(first[1]) < 1000  # of the river's flow, not of its deviation
    with pytest.raises(ConfigurationError, match="--center"):
        next(HurstStudy("nile", tmp_path / "other", "levels", center=True).run())
