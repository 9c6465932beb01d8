"""Sketches over partitions are the serial sketch, bit for bit."""

from __future__ import annotations

import pytest
import torch

from probkit.errors import ConfigurationError, DistributedError
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
