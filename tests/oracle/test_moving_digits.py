"""Moving digits follow their rules, repeat with their seed and refuse the impossible."""

import pytest
import torch

from probkit.errors import ConfigurationError
from probkit.fractional.video_data import MovingDigits, moving_digits

F64 = torch.float64


def test_digits_move_by_the_rules():
    videos = moving_digits(100, num_frames=12, num_digits=1, seed=3, dtype=F64)
    # a digit is never cut off, so a video's mass does not change
    mass = videos.sum((2, 3))
    assert torch.allclose(mass, mass[:, :1].expand_as(mass), atol=1e-4)
    grid = torch.arange(32, dtype=F64)
    rows = (videos.sum(3) * grid).sum(2) / mass
    moved = rows.diff(dim=1)
    # whole pixels at a time, of a speed that is at most a sixteenth of the frame
    assert float((moved - moved.round()).abs().max()) < 1e-3
    assert float(moved.abs().max()) <= 2 + 1e-3
    # between walls the velocity stays
    kept = (moved[:, 1:] - moved[:, :-1]).abs() < 1e-3
    assert 0.7 < float(kept.double().mean()) < 0.95
    assert {-2, -1, 0, 1, 2} == set(moved.round().int().flatten().tolist())


def test_digits_repeat_with_their_seed_and_splits_differ():
    assert torch.equal(moving_digits(2, seed=1), moving_digits(2, seed=1))
    assert not torch.equal(moving_digits(2, seed=1), moving_digits(2, seed=1, split="test"))
    first, again = (next(iter(MovingDigits(2, num_frames=4, seed=5))) for _ in range(2))
    assert torch.equal(first, again)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_videos": 0}, "num_videos"),
        ({"num_videos": 1, "size": 20}, "size"),
        ({"num_videos": 1, "split": "all"}, "split"),
        ({"num_videos": 1, "num_digits": 0}, "num_digits"),
    ],
)
def test_impossible_digits_are_refused(settings, words):
    with pytest.raises(ConfigurationError, match=words):
        moving_digits(settings.pop("num_videos"), **settings)
