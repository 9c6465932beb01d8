"""Saved results: the same numbers in another process, and clear refusals."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings

import pytest
import torch

import probkit
from probkit.errors import CheckpointError, ConfigurationError
from probkit.infer import CAVI, DrawsPosterior, FitResult, Gibbs, Status
from tests.toy_models import NormalGibbs, Walk, normal_data


@pytest.fixture(scope="module")
def result():
    return probkit.fit(NormalGibbs(normal_data()), engine=Gibbs(num_samples=60, num_warmup=20))


@pytest.fixture
def saved(result, tmp_path):
    return result.save(tmp_path / "saved")


_LOAD = """
import sys, torch
from probkit import FitResult
result = FitResult.load(sys.argv[1])
draws = result.posterior.sample(7, torch.Generator().manual_seed(2))
print(result.status.value, result.diagnostics["max_r_hat"].hex(), result.provenance["engine"])
print([value.hex() for value in draws["mean"].tolist()])
print([value.hex() for value in result.history["objective"].tolist()])
"""


def test_another_process_reads_the_same_numbers(result, saved):
    command = [sys.executable, "-c", _LOAD, str(saved)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    draws = result.posterior.sample(7, torch.Generator().manual_seed(2))
    r_hat = result.diagnostics["max_r_hat"].hex()
    assert lines == [
        f"{result.status.value} {r_hat} Gibbs",
        str([value.hex() for value in draws["mean"].tolist()]),
        str([value.hex() for value in result.history["objective"].tolist()]),
    ]


def test_saving_again_replaces(result, saved):
    probkit.fit(Walk(rate=0.9), engine=CAVI()).save(saved)
    assert FitResult.load(saved).provenance["engine"] == "CAVI"
    assert sorted(path.name for path in saved.iterdir()) == [
        "manifest.json",
        "posterior.nc",
        "state.safetensors",
    ]


def test_no_data_and_no_code_in_the_files(saved):
    assert b"pickle" not in (saved / "manifest.json").read_bytes()
    assert set(FitResult.load(saved).posterior.draws) == {"mean", "precision"}


def edit_manifest(saved, **changes):
    path = saved / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_newer_format_is_refused(saved):
    edit_manifest(saved, format_version=99)
    with pytest.raises(CheckpointError, match=r"newer version.*upgrade"):
        FitResult.load(saved)


def test_a_posterior_of_another_class_is_refused_where_one_is_expected(saved):
    assert isinstance(FitResult.load(saved, expect=DrawsPosterior).posterior, DrawsPosterior)
    with pytest.raises(CheckpointError, match=r"another model.*got DrawsPosterior, expected Walk"):
        FitResult.load(saved, expect=Walk)


def test_unknown_class_is_named(saved):
    edit_manifest(saved, **{"class": "elsewhere.Posterior"})
    with pytest.raises(CheckpointError, match=r"elsewhere\.Posterior"):
        FitResult.load(saved)


def test_unknown_class_of_an_unknown_package_of_ours(saved):
    edit_manifest(saved, **{"class": "probkit.nowhere.Posterior"})
    with pytest.raises(CheckpointError, match=r"probkit\.nowhere\.Posterior"):
        FitResult.load(saved)


@pytest.mark.parametrize("name", ["manifest.json", "state.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_damaged_files_are_reported(saved, name, damage):
    path = saved / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(CheckpointError, match="No readable result"):
        FitResult.load(saved)


def test_incomplete_manifest_is_reported(saved):
    (saved / "manifest.json").write_text("{}")
    with pytest.raises(CheckpointError, match="manifest"):
        FitResult.load(saved)


def test_unregistered_class_cannot_be_saved(result, tmp_path):
    class Own(DrawsPosterior):
        pass

    own = Own(result.posterior.draws)
    with pytest.raises(CheckpointError, match="Own cannot be saved"):
        FitResult(result.status, own, {}).save(tmp_path)


def test_loaded_result_cannot_be_resumed(saved):
    with pytest.raises(ConfigurationError, match="cannot be resumed"):
        FitResult.load(saved).resume()


def test_datatree_has_draws_and_provenance(result):
    tree = result.to_datatree()
    assert tree["posterior"]["mean"].shape == (2, 60)
    assert tree["posterior"]["mean"].dims == ("chain", "draw")
    assert json.loads(tree.attrs["provenance"])["engine"] == "Gibbs"


def test_old_arviz_reads_the_file(result, saved):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # arviz 0.x announces its own successor
        import arviz as az

        data = az.from_netcdf(saved / "posterior.nc")
        summary = az.summary(data)
    assert list(summary.index) == ["mean", "precision"]
    expected = float(result.posterior.mean()["mean"])
    assert summary.loc["mean", "mean"] == pytest.approx(expected, abs=1e-3)


def test_a_result_is_shown_in_a_line(result):
    assert repr(result).startswith("FitResult(")
    assert len(repr(result)) < 80


def test_names_that_netcdf_cannot_hold_are_changed_in_the_tree_and_told(tmp_path):
    draws = {n: torch.zeros(2, 5, dtype=torch.float64) for n in ("a/b", "a.b", "draw", "mean")}
    found = FitResult(Status.CONVERGED, DrawsPosterior(draws), {}, {}, {})
    tree = FitResult.load(found.save(tmp_path / "saved")).to_datatree()
    assert set(tree["posterior"].data_vars) == {"a.b", "a.b_", "draw_", "mean"}
    assert json.loads(tree.attrs["renamed"]) == {"a/b": "a.b_", "draw": "draw_"}
    assert (
        "renamed"
        not in FitResult(Status.CONVERGED, DrawsPosterior({"mean": draws["mean"]}), {}, {}, {})
        .to_datatree()
        .attrs
    )


@pytest.mark.parametrize("number", [0, -1, 10.0, "3"])
def test_numbers_of_draws_are_checked(result, number):
    for call in (result.check, result.replicate, result.prior, result.to_datatree):
        with pytest.raises(ConfigurationError, match="num_samples"):
            call(num_samples=number)
