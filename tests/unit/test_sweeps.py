"""Sweeps: order, failures kept, results found again, dead processes, dask."""

import sys

import dask
import distributed
import pytest
import torch

from probkit.errors import ConfigurationError, DependencyError
from probkit.infer.sweeps import fit_many, grid
from tests import sweep_jobs as jobs


def means(outcomes):
    return [float(outcome.result.posterior.mean()["mu"]) for outcome in outcomes]


def test_serial_sweep_keeps_order_and_failures():
    outcomes = fit_many(jobs.fit_mean, grid(seed=range(3), fail=[True]), backend="serial")
    assert [outcome.ok for outcome in outcomes] == [True, False, True]
    assert [outcome.settings["seed"] for outcome in outcomes] == [0, 1, 2]
    assert "ValueError: seed one is unlucky" in outcomes[1].error
    assert "sweep_jobs.py" in outcomes[1].error
    assert outcomes[1].result is None


def test_results_are_found_again_and_failures_tried_again(tmp_path):
    log = tmp_path / "log"
    settings = grid(seed=range(3), log=[str(log)])
    options = {"out": tmp_path / "fits", "backend": "serial"}
    bad = [s | {"fail": True} for s in settings]
    assert [o.ok for o in fit_many(jobs.fit_mean, bad, **options)] == [True, False, True]
    again = fit_many(jobs.fit_mean, bad, **options)
    assert log.read_text().split() == ["0", "1", "2", "1"]
    fresh = fit_many(jobs.fit_mean, grid(seed=range(3)), backend="serial")
    assert means([again[0], again[2]]) == means([fresh[0], fresh[2]])
    assert not list((tmp_path / "fits").glob("*.part"))


def test_processes_agree_with_serial(tmp_path):
    settings = grid(seed=range(3))
    outcomes = fit_many(jobs.fit_mean, settings, out=tmp_path, workers=2)
    assert means(outcomes) == means(fit_many(jobs.fit_mean, settings, backend="serial"))


def test_dead_process_is_one_failure():
    outcomes = fit_many(jobs.square, grid(x=range(4)), workers=1)
    assert [outcome.result for outcome in outcomes] == [0, 1, None, 9]
    assert "killed" in outcomes[2].error


def test_dask_agrees_with_serial():
    with distributed.Client(
        processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None
    ) as client:
        outcomes = fit_many(jobs.draw, grid(size=[3, 1, -1]), backend="dask", client=client)
    assert torch.equal(outcomes[0].result, torch.arange(3.0))
    assert len(outcomes[1].result) == 1
    assert "RuntimeError" in outcomes[2].error


def test_missing_dask_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(DependencyError, match=r"probkit\[distributed\]"):
        fit_many(jobs.draw, grid(size=[1]), backend="dask")


@pytest.mark.parametrize(
    ("job", "settings", "options", "text"),
    [
        (jobs.draw, grid(size=[1]), {"backend": "threads"}, "no such backend"),
        (lambda size: size, grid(size=[1]), {}, "cannot import this job"),
        (jobs.draw, [{"size": 1}, {"size": 1}], {"out": "fits"}, "twice"),
        (jobs.draw, [{"size": torch.zeros(2)}], {"out": "fits"}, "JSON-able"),
    ],
)
def test_bad_calls_are_refused(job, settings, options, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=text):
        fit_many(job, settings, **options)


def test_only_fits_are_written(tmp_path):
    (outcome,) = fit_many(jobs.draw, grid(size=[1]), out=tmp_path, backend="serial")
    assert "Only fits can be written" in outcome.error


def test_dask_worker_that_dies_is_one_failure():
    """Also jobs that waited at the worker, which dask gives up with it."""
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        outcomes = fit_many(jobs.square, grid(x=range(4)), backend="dask", client=client)
    assert [outcome.result for outcome in outcomes] == [0, 1, None, 9]
    assert "killed" in outcomes[2].error
