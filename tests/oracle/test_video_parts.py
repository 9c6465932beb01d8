"""Parts of the latent video model by themselves: tracking, keypoints, scores and batches."""

import math

import pytest
import torch

from probkit.errors import ConfigurationError, DataError, ShapeError
from probkit.fractional.video_batches import CutVideos, EqualBatches, ShuffledVideos
from probkit.fractional.video_networks import FrameEncoder
from probkit.fractional.video_scores import baseline_psnr, prediction_psnr, psnr
from probkit.fractional.video_tracking import Aims, Tracker

F64 = torch.float64


def test_objects_that_cross_stay_the_same():
    """Aims in an order that changes at random: errors are those in the order of the path."""
    tracker = Tracker(5, 6, num_objects=3).double()
    g = torch.Generator().manual_seed(0)
    position = 2 * torch.rand(50, 3, 2, generator=g, dtype=F64)
    position = position + torch.tensor([0.0, 4.0, 8.0], dtype=F64)[:, None]
    velocity = torch.randn(50, 3, 2, generator=g, dtype=F64)
    q, v = position + 0.1, velocity - 0.2
    order = torch.stack([torch.randperm(3, generator=g) for _ in range(50)])
    shuffled = (part[torch.arange(50)[:, None], order].flatten(1) for part in (position, velocity))
    aims = Aims(*shuffled, torch.ones(1, 1, dtype=F64))
    with torch.no_grad():
        near, fast = tracker.errors(torch.cat([q.flatten(1), v.flatten(1)], 1), aims, 0.5)
    assert torch.allclose(near, torch.full_like(near, -0.2))
    assert torch.allclose(fast, torch.full_like(fast, 0.2))


def test_keypoints_move_with_the_picture():
    """Maps of one bright spot: their mean places move by what the spot moves."""
    encoder = FrameEncoder((4, 8), 4)
    with torch.no_grad():
        encoder.fine = torch.nn.AvgPool2d(2)  # 16 pixels to 8 cells
        encoder.keypoints = torch.nn.Conv2d(1, 16, 1)
        encoder.keypoints.weight.fill_(100.0)
        encoder.coarse = torch.nn.Sequential(torch.nn.AvgPool2d(2), torch.nn.Conv2d(1, 8, 1))
        frames = torch.zeros(2, 1, 16, 16)
        frames[0, 0, 4:6, 10:12] = frames[1, 0, 10:12, 4:6] = 1
        seen = []
        encoder.last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, -32:]))
        encoder(frames)
    places = seen[0].unflatten(1, (2, 16))[..., 0]
    expected = 2 * torch.linspace(-1, 1, 8)[torch.tensor([[2, 5], [5, 2]])]
    assert torch.allclose(places, expected)


def test_scores():
    truth = torch.zeros(2, 3, 4, 4, dtype=F64)
    draws = torch.stack([truth + 0.1, truth - 0.1, truth + 0.3])
    scores = prediction_psnr(draws, truth)
    assert scores["best"] == pytest.approx(20.0)
    assert scores["mean"] == pytest.approx(20.0)  # the mean is at .1
    known = torch.stack([truth[:, 0], truth[:, 0] + 0.2], 1)
    found = baseline_psnr(known, truth, torch.full((4, 4), 0.01, dtype=F64))
    assert found == pytest.approx(
        {"last frame": -20 * math.log10(0.2), "mean of known frames": 20.0, "mean frame": 40.0}
    )
    assert float(psnr(truth, truth).min()) == 100.0
    with pytest.raises(ShapeError, match="draws"):
        prediction_psnr(draws[:, :1], truth)


def test_videos_are_cut_to_random_lengths():
    videos = torch.arange(8.0)[:, None, None].expand(3, 8, 4, 4)
    cut = CutVideos([videos] * 40, 5, seed=0)
    first, again = list(cut), list(cut)
    assert {batch.shape[1] for batch in first} == {5, 6, 7, 8}
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(bool((batch.diff(dim=1) == 1).all()) for batch in first)
    assert {float(batch[0, 0, 0, 0]) for batch in first} == {0.0, 1.0, 2.0, 3.0}
    with pytest.raises(ConfigurationError, match="least"):
        next(iter(CutVideos([videos], 9, seed=0)))


def test_batches():
    videos = torch.arange(5.0)[:, None, None, None].expand(5, 3, 4, 4)
    batches = EqualBatches(ShuffledVideos(videos, 2, seed=0))
    assert batches.size == 2
    first, second = ([int(v[0, 0, 0]) for batch in batches for v in batch] for _ in range(2))
    assert len(set(first)) == 4 and first != second
    with pytest.raises(ConfigurationError, match="batch_size"):
        ShuffledVideos(videos, 6, seed=0)
    with pytest.raises(DataError, match="one size"):
        list(EqualBatches([videos[:2], videos[:1]]))
