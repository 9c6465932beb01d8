"""Fits one after another leave the process as it was; stopped fits resume to the same numbers.

Few fits and interrupts; the rows X2-X4 of ``python -m benchmarks.run product`` make 1 000 and 50.
"""

from __future__ import annotations

import warnings
from random import Random

import pytest

from benchmarks.product import interrupts
from benchmarks.product.global_state import changes, snapshot
from benchmarks.product.small_fits import FITS, RESUMABLE, Options

SLOW = ("tensor gibbs", "tensor", "hmc")


def test_fits_leave_nothing_behind():
    names = [name for name in FITS if name not in SLOW]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            FITS[name](Options())
        before = snapshot()
        for name in names:
            FITS[name](Options(seed=1))
        assert changes(before, snapshot()) == []


def test_a_change_is_noticed():
    before = snapshot()
    assert changes(before, {**before, "gradients": False}) == ["gradients: True -> False"]


@pytest.mark.parametrize("name", [name for name in RESUMABLE if name != "hmc"])
def test_a_fit_stopped_at_random_ends_with_the_same_numbers(name):
    found = interrupts.raised(name, 2, Random(1))
    assert found.interrupts >= 2
    assert found.difference == 0.0


def test_a_fit_killed_at_random_ends_with_the_same_numbers():
    found = interrupts.killed("sparse", 2, Random(1))
    assert found.interrupts >= 2
    assert found.difference == 0.0
