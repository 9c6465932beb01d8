"""Sketches over partitions are the serial sketch, bit for bit."""

from __future__ import annotations

import copy

import pytest
import torch

from probkit.errors import ConfigurationError, DistributedError
from probkit.privacy import PrivacyError
from probkit.similarity import PrivateKDE
from probkit.similarity.distributed import _merge, all_reduce_sketch, build_with_dask


def make() -> PrivateKDE:
    return PrivateKDE(3, bandwidth=1.0, num_features=40, seed=2)


def records() -> torch.Tensor:
    return torch.randn(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture(scope="module")
def client():
    distributed = pytest.importorskip("dask.distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def test_dask_build_is_the_serial_build(client):
    x = records()
    sketch = build_with_dask(make, x.split(60), client, fan_in=3)
    assert torch.equal(sketch.state, make().update(x).state) and sketch.count == 500
    loaded = build_with_dask(make, range(5), client, load=lambda k: x[100 * k : 100 * (k + 1)])
    assert torch.equal(loaded.state, sketch.state)


def test_a_failing_partition_is_reported(client):
    with pytest.raises(DistributedError, match="partition"):
        build_with_dask(make, [records(), torch.zeros(3, 9)], client)
    with pytest.raises(ConfigurationError, match="partitions"):
        build_with_dask(make, [], client)


def test_a_merge_that_runs_again_finds_its_inputs_unchanged():
    parts = [make().update(part) for part in records().split(250)]
    first, second = _merge(parts), _merge(parts)
    assert torch.equal(first.state, second.state) and second.count == 500
    assert not any(part.merged for part in parts)
    with pytest.raises(PrivacyError, match="same records"):
        _merge([parts[0], *parts])


def test_all_reduce_needs_a_group_and_keeps_the_state(tmp_path):
    sketch = make().update(records())
    with pytest.raises(DistributedError, match="process group"):
        all_reduce_sketch(sketch)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        before = sketch.state.clone()
        assert torch.equal(all_reduce_sketch(sketch).state, before) and sketch.count == 500
        users = PrivateKDE(3, bandwidth=1.0, num_features=4, max_rows_per_user=2)
        with pytest.raises(ConfigurationError, match="max_rows_per_user"):
            all_reduce_sketch(users)
    finally:
        torch.distributed.destroy_process_group()


def test_all_reduce_refuses_records_that_several_processes_hold(monkeypatch):
    """One process plays two: the other holds what ``peer`` does."""
    peer = make().update(records())

    def gather(choices, mine):
        choices[:] = [mine, (peer._choices(), peer.merged, peer.count, peer._parts)]

    for name, value in {
        "is_initialized": lambda: True,
        "get_world_size": lambda: 2,
        "all_gather_object": gather,
        "all_reduce": lambda state: state.add_(peer.state),
    }.items():
        monkeypatch.setattr(torch.distributed, name, value)
    sketch = make().update(records())
    whole = all_reduce_sketch(sketch)
    assert whole.count == 1000 and torch.equal(whole.state, 2 * peer.state)
    before = whole.state.clone()
    for again in (whole, copy.deepcopy(peer)):  # a second sum; records sent to both
        with pytest.raises(DistributedError, match="same records"):
            all_reduce_sketch(again)
    with pytest.raises(PrivacyError, match="same records"):
        whole.merge(peer)
    assert torch.equal(whole.state, before) and whole.count == 1000
    with pytest.raises(DistributedError, match="differ"):
        all_reduce_sketch(PrivateKDE(3, bandwidth=1.0, num_features=40, seed=None))
    make().merge(sketch)
    with pytest.raises(DistributedError, match="merged"):
        all_reduce_sketch(sketch)
