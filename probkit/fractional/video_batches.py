"""Videos as minibatches of equal size, and what a batch of videos must be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ConfigurationError, DataError, DtypeError, ShapeError, message
from probkit.random import as_generator

__all__ = ["CutVideos", "EqualBatches", "ShuffledVideos", "check_frames"]

_MIN_FRAMES = 3


class ShuffledVideos:
    """Minibatches of videos in a new order at every iteration; what is left over waits.

    Raises:
        ConfigurationError: fewer videos than a batch.

    Example:
        >>> [len(batch) for batch in ShuffledVideos(torch.zeros(5, 3, 4, 4), 2, seed=0)]
        [2, 2]
    """

    def __init__(
        self, videos: Float[Tensor, "num_videos T H W"], batch_size: int, seed: int
    ) -> None:
        if not 1 <= batch_size <= len(videos):
            raise ConfigurationError(
                message(
                    "A batch must hold videos, and not more than there are",
                    where="batch_size",
                    got=batch_size,
                    expected=f"1 ... {len(videos)}",
                )
            )
        self.videos, self.batch_size = videos, batch_size
        self._generator = as_generator(seed)

    def __iter__(self) -> Iterator[Tensor]:
        order = torch.randperm(len(self.videos), generator=self._generator)
        for rows in order.split(self.batch_size):
            if len(rows) == self.batch_size:
                yield self.videos[rows.to(self.videos.device)]


class CutVideos:
    """Batches cut to a random part in time, so that training sees videos as short as forecasts do.

    Args:
        batches: an iterable of batches.
        least: frames that are left at least.
        seed: of the cuts, which are the same at every iteration.

    Raises:
        ConfigurationError: a batch that is shorter than that.

    Example:
        >>> [batch.shape[1] for batch in CutVideos([torch.zeros(2, 9, 4, 4)] * 3, 4, seed=0)]
        [7, 4, 8]
    """

    def __init__(self, batches: Iterable[Tensor], least: int, seed: int) -> None:
        self.batches, self.least, self.seed = batches, least, seed

    def __iter__(self) -> Iterator[Tensor]:
        generator = as_generator(self.seed)
        for batch in self.batches:
            spare = batch.shape[1] - self.least
            if spare < 0:
                raise ConfigurationError(
                    message(
                        "A video is shorter than the least that may be left of it",
                        where="least",
                        got=self.least,
                        expected=f"<= {batch.shape[1]}",
                    )
                )
            dropped = int(torch.randint(spare + 1, (), generator=generator))
            first = int(torch.randint(dropped + 1, (), generator=generator))
            yield batch[:, first : first + batch.shape[1] - dropped]


class EqualBatches:
    """The user's batches, refused where one has another size: the objective is a batch's mean."""

    def __init__(self, batches: Iterable[Tensor]) -> None:
        self.batches = batches
        self.size = len(next(iter(batches), ()))

    def __iter__(self) -> Iterator[Tensor]:
        for batch in self.batches:
            if len(batch) != self.size:
                raise DataError(
                    message(
                        "Batches of videos must have one size",
                        where="videos",
                        got=len(batch),
                        expected=self.size,
                        remedy="leave out the last, smaller one",
                    )
                )
            yield batch


def check_frames(frames: Tensor, size: int, *, at_least: int = _MIN_FRAMES) -> None:
    """Refuse what is no batch of videos.

    Raises:
        DtypeError: not a floating-point tensor.
        ShapeError: not (B, T, size, size), or fewer frames than needed.
        DataError: pixels that are not finite or outside [0, 1].
    """
    if not isinstance(frames, Tensor) or not frames.is_floating_point():
        raise DtypeError(
            message(
                "Frames must be a floating-point tensor",
                where="frames",
                got=getattr(frames, "dtype", type(frames).__name__),
                expected="float32 or float64",
                remedy="bytes: frames.float() / 255",
            )
        )
    shape = tuple(frames.shape)
    if frames.dim() != 4 or shape[2:] != (size, size) or not shape[0]:
        raise ShapeError(
            message(
                "Frames have the wrong shape",
                where="frames",
                got=shape,
                expected=f"(videos, frames, {size}, {size})",
            )
        )
    if shape[1] < at_least:
        raise ShapeError(
            message(
                "Too few frames: the start of the path is read off the first three",
                where="frames",
                got=f"{shape[1]} frames",
                expected=f">= {at_least}",
            )
        )
    if not bool(frames.isfinite().all()):
        where = torch.nonzero(~frames.isfinite())[0].tolist()
        raise DataError(
            message(
                "Pixels must be finite",
                where=f"frames{where}",
                got=float(frames[tuple(where)]),
                remedy="leave out videos with missing frames",
            )
        )
    low, high = float(frames.min()), float(frames.max())
    if low < -1e-6 or high > 1 + 1e-6:
        raise DataError(
            message(
                "Pixels must lie between 0 and 1",
                where="frames",
                got=f"{low:.3g} ... {high:.3g}",
                remedy="divide by the largest value",
            )
        )
