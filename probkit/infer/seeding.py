"""Isolation from Pyro's global state: its random numbers and its parameter store.

Pyro draws from torch's global generator and keeps parameters in one global store. Inside these
contexts a computation depends on its seed only, and whatever the user had is there afterwards.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyro
import torch

__all__ = ["param_scope", "pyro_seed", "reseed"]


@contextmanager
def pyro_seed(seed: int) -> Iterator[None]:
    """Seed the global generators of torch, Python and NumPy, and restore them afterwards.

    Args:
        seed: any non-negative integer; Python and NumPy see its lower 32 bits.

    Example:
        >>> with pyro_seed(7):
        ...     a = torch.rand(3)
        >>> with pyro_seed(7):
        ...     b = torch.rand(3)
        >>> bool((a == b).all())
        True
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=devices):
        try:
            reseed(seed)
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002


def reseed(seed: int) -> None:
    """Seed again inside ``pyro_seed``, which restores the generators at its end.

    Saving and restoring them in every step of a loop would take a tenth of a small model's step.
    """
    if torch.cuda.is_available():
        torch.manual_seed(seed)
    else:  # torch.manual_seed formats a stack trace for devices that are not there
        torch.default_generator.manual_seed(seed)
    random.seed(seed)
    # Pyro's own functions use NumPy's global generator, so that is the one to seed
    np.random.seed(seed % 2**32)  # noqa: NPY002


@contextmanager
def param_scope() -> Iterator[None]:
    """An empty parameter store, whatever the user's holds; the user's comes back afterwards.

    Example:
        >>> with param_scope():
        ...     _ = pyro.param("a", torch.zeros(2))
        >>> "a" in pyro.get_param_store()
        False
    """
    with (
        pyro.settings.context(module_local_params=False),
        pyro.get_param_store().scope(),
    ):
        yield
