"""Settings shared by all tests, and a guard against changes of global state."""

from __future__ import annotations

from collections.abc import Iterator

import pyro
import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def unchanged_global_state() -> Iterator[None]:
    """Fail a test that leaves a default dtype, validation or Pyro parameters changed behind it."""
    before = _global_state()
    yield
    after = _global_state()
    pyro.clear_param_store()
    assert after == before


def _global_state() -> dict[str, object]:
    return {
        "default dtype": torch.get_default_dtype(),
        "validation": pyro.settings.get("validate_distributions_pyro"),
        "validation of poutine": pyro.settings.get("validate_poutine"),
        "parameters": sorted(pyro.get_param_store().keys()),
    }
