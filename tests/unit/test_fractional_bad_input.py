"""The rows of users' mistakes, one test each."""

import pytest

from benchmarks.fractional.bad_input import CHECKS


@pytest.mark.parametrize("mistake", CHECKS)
def test_mistake_is_handled(mistake):
    assert CHECKS[mistake]()
