"""Stochastic moving digits: videos whose motion is predictable only between walls.

The rules of Daems et al., ICLR 2024, with all lengths in proportion to the frame (theirs: digits of
32 on frames of 64, velocities -4 ... 4). A digit of half the frame's size starts at a uniform place
with a uniform integer velocity; where it crosses a wall it is put back to it, the component of the
velocity that points inwards is drawn from 1 ... v and the other one from -v ... v. Digits are added
and the sum is cut at 1. They are the 8 x 8 images of scikit-learn's ``load_digits`` (1797 of them;
UCI, CC BY 4.0), magnified without a download; the last 297 are kept for tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from probkit.errors import ConfigurationError, DependencyError, message
from probkit.random import Seed, as_generator
from probkit.validation import require_all_positive

__all__ = ["MovingDigits", "moving_digits"]

_NUM_TRAIN = 1500
_REFERENCE = 64
_FASTEST = 4


def moving_digits(
    num_videos: int,
    *,
    num_frames: int = 25,
    size: int = 32,
    num_digits: int = 2,
    split: str = "train",
    seed: Seed = 0,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "num_videos num_frames size size"]:
    """Draw videos with pixels in [0, 1].

    Args:
        num_videos, num_frames: how many.
        size: height and width in pixels, a multiple of 16.
        num_digits: digits in a video.
        split: "train" or "test": which images the digits are drawn from.
        seed: of images, places, velocities and rebounds.
        dtype: of the result.

    Raises:
        ConfigurationError: sizes that are not positive, a frame that is no multiple of 16, or an
            unknown split.
        DependencyError: scikit-learn is not installed.

    Example:
        >>> videos = moving_digits(2, num_frames=5, seed=0)
        >>> videos.shape, bool(((videos >= 0) & (videos <= 1)).all())
        (torch.Size([2, 5, 32, 32]), True)
    """
    _check(num_videos, num_frames, size, num_digits, split)
    generator = as_generator(seed)
    known = _images(size // 2, split)
    chosen = torch.randint(len(known), (num_videos, num_digits), generator=generator)
    places = _places((num_videos, num_digits), num_frames, size, generator)
    return _render(known[chosen], places, size).to(dtype)


@dataclass(frozen=True)
class MovingDigits:
    """An endless stream of fresh minibatches, to be given to ``probkit.infer.Batches``.

    Args:
        batch_size: videos in a batch.
        num_frames, size, num_digits, dtype: see :func:`moving_digits`.
        seed: the stream is the same at every iteration.
        device: of the batches.

    Example:
        >>> next(iter(MovingDigits(4, num_frames=3))).shape
        torch.Size([4, 3, 32, 32])
    """

    batch_size: int
    num_frames: int = 25
    size: int = 32
    num_digits: int = 2
    seed: int = 0
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        _check(self.batch_size, self.num_frames, self.size, self.num_digits, "train")

    def __iter__(self) -> Iterator[Tensor]:
        generator = as_generator(self.seed)
        while True:
            yield moving_digits(
                self.batch_size,
                num_frames=self.num_frames,
                size=self.size,
                num_digits=self.num_digits,
                seed=generator,
                dtype=self.dtype,
            ).to(self.device)


def _places(
    shape: tuple[int, int], num_frames: int, size: int, generator: torch.Generator
) -> Tensor:
    """Upper left corners, (num_frames, *shape, 2)."""
    free = size - size // 2
    fastest = max(round(_FASTEST * size / _REFERENCE), 1)

    def integers(low: int, high: int, *sizes: int) -> Tensor:
        return torch.randint(low, high + 1, sizes, generator=generator)

    place, velocity = integers(0, free - 1, *shape, 2), integers(-fastest, fastest, *shape, 2)
    found = []
    for _ in range(num_frames):
        for axis in (0, 1):
            below, above = place[..., axis] < 0, place[..., axis] >= free
            inward = integers(1, fastest, *shape)
            inward = torch.where(below, inward, -inward)
            along = integers(-fastest, fastest, *shape)
            hit = below | above
            velocity[..., axis] = torch.where(hit, inward, velocity[..., axis])
            velocity[..., 1 - axis] = torch.where(hit, along, velocity[..., 1 - axis])
        place = place.clamp(0, free - 1)
        found.append(place)
        place = place + velocity
    return torch.stack(found)


def _render(images: Tensor, places: Tensor, size: int) -> Tensor:
    """Add (B, J, s, s) images at (T, B, J, 2) places, (B, T, size, size)."""
    num_frames, num_videos = places.shape[:2]
    inside = torch.arange(images.shape[-1])
    rows = places[..., 0, None, None] + inside[:, None]
    index = (rows * size + places[..., 1, None, None] + inside).flatten(2)
    values = images.flatten(1).expand(num_frames, num_videos, -1)
    canvas = images.new_zeros(num_frames, num_videos, size * size).scatter_add_(2, index, values)
    return canvas.clamp_max(1).unflatten(-1, (size, size)).transpose(0, 1).contiguous()


@cache
def _images(size: int, split: str) -> Tensor:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DependencyError(
            message(
                "The digits come with scikit-learn",
                where="moving_digits",
                remedy='pip install "probkit[data]"',
            )
        ) from error
    images = torch.as_tensor(load_digits().images, dtype=torch.float32)[:, None] / 16
    images = images[:_NUM_TRAIN] if split == "train" else images[_NUM_TRAIN:]
    return interpolate(images, size=size, mode="bilinear", align_corners=False)[:, 0]


def _check(num_videos: int, num_frames: int, size: int, num_digits: int, split: str) -> None:
    require_all_positive(num_videos=num_videos, num_frames=num_frames, num_digits=num_digits)
    if size < 16 or size % 16:
        raise ConfigurationError(
            message("The frame cannot hold the digits", where="size", got=size, expected="16 k")
        )
    if split not in ("train", "test"):
        raise ConfigurationError(
            message("Unknown split", where="split", got=repr(split), expected='"train" or "test"')
        )
