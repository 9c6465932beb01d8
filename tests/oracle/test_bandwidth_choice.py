"""Bandwidth from a release: the score of brute force, and the choice that it leads to."""

from __future__ import annotations

import math

import pytest
import torch

from probkit.errors import ConfigurationError
from probkit.privacy import PrivacyAccountant
from probkit.similarity import PrivateDistance, PrivateKDE, choose_bandwidth

CANDIDATES = [0.12, 0.25, 0.5, 1.0, 1.7]


def released(x, epsilon=2.0):
    sketch = PrivateKDE(1, bandwidth=[0.1, 0.3, 0.9, 2.5], num_features=4000).update(x)
    return sketch.release(PrivacyAccountant(epsilon=epsilon, delta=1e-6))


def exact_score(x, h):
    n = len(x)
    square = torch.cdist(x, x).square()
    wide = torch.exp(-square / (2 * h**2)).mean() / math.sqrt(2 * math.pi * h**2)
    own = (torch.exp(-square / h**2).sum() - n) / (n * (n - 1)) / math.sqrt(math.pi * h**2)
    return float(wide - 2 * own)


def test_scores_are_those_of_brute_force_and_so_is_the_choice():
    x = torch.randn(2000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    choice = choose_bandwidth(released(x), CANDIDATES)
    exact = {h: exact_score(x, h) for h in CANDIDATES}
    for h in CANDIDATES:
        assert choice.scores[h] == pytest.approx(exact[h], abs=0.05)
    assert exact[choice.best] < min(exact.values()) + 0.02


def test_narrow_groups_are_not_smoothed_over():
    x = 0.2 * torch.randn(
        20_000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    x[::2] += 2.0
    assert choose_bandwidth(released(x, epsilon=1.0), CANDIDATES).best <= 0.25


def test_candidates_need_waves_of_their_size_and_a_release_of_waves():
    x = torch.rand(100, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    release = released(x, epsilon=5.0)
    for bad in ([0.05], [2.0], []):
        with pytest.raises(ConfigurationError, match="candidates"):
            choose_bandwidth(release, bad)
    table = PrivateDistance(1, bounds=(0, 1), num_cells=16).update(x)
    with pytest.raises(ConfigurationError, match="release"):
        choose_bandwidth(table.release(PrivacyAccountant(epsilon=5)), [0.2])
