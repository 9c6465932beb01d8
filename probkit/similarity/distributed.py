"""Sketches built over partitions: by dask workers, or by the processes of torch.distributed.

States are integers, so the sum over partitions is the serial state bit for bit, in whatever order
they arrive. Noise is drawn once, where the accountant lives; workers never see a budget, so a
worker that dies and is replaced can lose work but cannot spend anything. (Noise that is itself
distributed, so that no machine ever holds the raw sum, is not offered.)
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch

from probkit.errors import ConfigurationError, DependencyError, DistributedError, message
from probkit.similarity.sketch import Sketch

if TYPE_CHECKING:
    from dask.distributed import Client

__all__ = ["all_reduce_sketch", "build_with_dask"]


def build_with_dask(
    make: Callable[[], Sketch],
    partitions: Iterable[Any],
    client: Client,
    *,
    load: Callable[[Any], Any] | None = None,
    fan_in: int = 8,
) -> Sketch:
    """Build a sketch of all partitions on a dask cluster; tree-sum at the end.

    Args:
        make: builds the empty sketch, with a whole number for a seed, so that all are alike; must
            be importable by the workers.
        partitions: tensors, arrays, or what ``load`` turns into them on the worker.
        client: of a running cluster.
        load: reads one partition on the worker; None if partitions are the records.
        fan_in: sketches merged by one task.

    Raises:
        DependencyError: dask is not installed.
        ConfigurationError: no partitions.
        DistributedError: a partition or a merge failed; nothing was released.
    """
    try:
        from dask.distributed import wait
    except ImportError as error:
        raise DependencyError(
            message("This needs dask", remedy='pip install "probkit[distributed]"')
        ) from error
    futures = [client.submit(_build, make, part, load, pure=False) for part in partitions]
    if not futures:
        raise ConfigurationError(message("There are no partitions", where="partitions"))
    while len(futures) > 1:
        groups = [futures[i : i + fan_in] for i in range(0, len(futures), fan_in)]
        futures = [client.submit(_merge, group, pure=False) for group in groups]
    (future,) = futures
    wait(future)
    if future.status != "finished":
        raise DistributedError(
            message("A partition failed", got=str(future.exception()))
        ) from future.exception()
    sketch = future.result()
    assert isinstance(sketch, Sketch)
    return sketch


def all_reduce_sketch(sketch: Sketch) -> Sketch:
    """Sum the sketches of all processes of the default torch.distributed group, in place.

    Every process ends with the sketch of all records; only one of them may release it, and a second
    sum of these would count every record once a process.

    Raises:
        DistributedError: no process group, or the processes made different public choices (a seed
            of None is another one in every process), or hold the same records, or a sketch that
            was released or merged into another.
        ConfigurationError: rows are protected by user, whose rows may lie on several processes.
    """
    group = torch.distributed
    if not (group.is_available() and group.is_initialized()):
        raise DistributedError(
            message(
                "There is no process group",
                remedy="call torch.distributed.init_process_group first",
            )
        )
    if sketch.max_rows_per_user > 1:
        raise ConfigurationError(
            message(
                "Limits for users need one place that sees all rows",
                where="max_rows_per_user",
                remedy="merge the sketches in one process",
            )
        )
    choices: list[Any] = [None] * group.get_world_size()
    closed = sketch.released or sketch.merged
    group.all_gather_object(choices, (sketch._choices(), closed, sketch.count, sketch._parts))
    if any(choice[:2] != choices[0][:2] or choice[1] for choice in choices):
        raise DistributedError(
            message("The processes hold sketches that differ, or were released or merged")
        )
    parts = frozenset[str]().union(*(choice[3] for choice in choices))
    if len(parts) < sum(len(choice[3]) for choice in choices):
        raise DistributedError(message("Several processes hold the same records"))
    if sum(choice[2] for choice in choices) * sketch.design.largest >= 2**62:
        raise DistributedError(message("So many records could overflow", got="all processes"))
    group.all_reduce(sketch.state)
    sketch.count = sum(choice[2] for choice in choices)
    sketch._parts = parts
    return sketch


def _build(make: Callable[[], Sketch], part: Any, load: Callable[[Any], Any] | None) -> Sketch:
    return make().update(part if load is None else load(part))


def _merge(sketches: list[Sketch]) -> Sketch:
    # copies: a merge uses parts up, and a task that runs again must find its inputs as they were
    total, *rest = map(copy.copy, sketches)
    for other in rest:
        total.merge(other)
    return total
