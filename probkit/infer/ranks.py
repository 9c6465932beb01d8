"""The processes of one joint computation: their group, its collectives, and errors that say why.

A script started by ``torchrun`` runs once in every process; the rank tells them apart. Started
without it, the same script is a group of one, and every collective returns its input.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from probkit.errors import ConfigurationError, DistributedError, message

__all__ = ["Ranks", "process_group"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Ranks:
    """This process's place in the group.

    Args:
        rank: number of this process, from 0.
        size: how many there are.
        timeout: seconds that a collective waits for the others.
    """

    rank: int = 0
    size: int = 1
    timeout: float = 60.0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Sum of a tensor over all ranks, the same bits everywhere: one all-reduce.

        Raises:
            DistributedError: a rank is gone or does not answer in time.
        """
        if self.size == 1:
            return values
        total = values.clone()
        self._collective(lambda: dist.all_reduce(total))
        return total

    def share(self, value: _T) -> _T:
        """Rank 0's value, on every rank.

        Raises:
            DistributedError: a rank is gone or does not answer in time.
        """
        if self.size == 1:
            return value
        held: list[Any] = [value]
        cpu = torch.device("cpu")
        self._collective(lambda: dist.broadcast_object_list(held, src=0, device=cpu))
        found: _T = held[0]
        return found

    def require_equal(self, what: str, value: str) -> None:
        """Check that all ranks hold the same text (a digest).

        Raises:
            DistributedError: they do not; a rank is gone or does not answer in time.
        """
        first = self.share(value)
        differing = self.sum(torch.tensor([float(value != first)], dtype=torch.float64))
        if float(differing):
            raise DistributedError(
                message(
                    f"{int(differing)} of {self.size} processes differ from the first in {what}",
                    where=f"rank {self.rank}",
                    got=value[:12],
                    expected=first[:12],
                    causes=("each process made its own random data", "different files or code"),
                    remedy="give every process the same data, model and settings",
                )
            )

    def _collective(self, call: Callable[[], object]) -> None:
        try:
            call()
        except RuntimeError as error:  # torch raises nothing more special than this
            raise DistributedError(
                message(
                    f"Rank {self.rank} of {self.size} has lost touch with the others",
                    where=str(error).splitlines()[0].rpartition("] ")[2].strip(" ."),
                    causes=(
                        "another process was killed or ran out of memory",
                        "another process raised an error: look at its output",
                        f"a process took longer than timeout={self.timeout:g} s over one step",
                    ),
                    remedy="start all processes again with resume=True and the same checkpoint "
                    "directory; the fit goes on from the last checkpoint",
                )
            ) from error


@contextmanager
def process_group(*, device: torch.device | str = "cpu", timeout: float = 60.0) -> Iterator[Ranks]:
    """Join the group that ``torchrun`` set up; a group of one where there is none.

    A group that exists already is used and left alone. On CUDA every process takes the card of its
    local rank, and tensors travel by nccl; on a CPU by gloo.

    Args:
        device: where the tensors live that are summed.
        timeout: seconds that a collective waits before it gives up.

    Raises:
        ConfigurationError: torch was built without ``torch.distributed``.
        DistributedError: the processes did not find each other in time.

    Example:
        >>> with process_group() as ranks:
        ...     ranks.size, ranks.first
        (1, True)
    """
    if dist.is_available() and dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size(), timeout)
        return
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        yield Ranks(timeout=timeout)
        return
    if not dist.is_available():
        raise ConfigurationError(
            message("This build of torch has no torch.distributed", remedy="install another build")
        )
    ranks = Ranks(int(os.environ["RANK"]), size, timeout)
    cuda = torch.device(device).type == "cuda"
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    limit = timedelta(seconds=timeout)
    ranks._collective(lambda: dist.init_process_group(backend, timeout=limit))
    try:
        yield ranks
    finally:
        dist.destroy_process_group()
