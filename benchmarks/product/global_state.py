"""What a process shares between fits: none of it may be changed by one."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch

__all__ = ["changes", "snapshot"]


def snapshot() -> dict[str, Any]:
    """Defaults, random states, parameters, filters, threads and open files of this process."""
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002 - the global one is the question
    assert isinstance(numpy_state, dict)
    return {
        "default dtype": str(torch.get_default_dtype()),
        "default device": str(torch.get_default_device()),
        "gradients": torch.is_grad_enabled(),
        "anomaly detection": torch.is_anomaly_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "torch threads": torch.get_num_threads(),
        "validation": pyro.settings.get("validate_distributions_pyro"),
        "validation of torch": torch.distributions.Distribution._validate_args,
        "parameters": sorted(pyro.get_param_store().keys()),
        "handlers": len(pyro.poutine.runtime._PYRO_STACK),
        "torch random": _digest(torch.get_rng_state().numpy().tobytes()),
        "numpy random": _digest(repr(numpy_state["state"]).encode()),
        "python random": _digest(repr(random.getstate()).encode()),
        "numpy errors": np.geterr(),
        "warning filters": list(warnings.filters),
        "threads": threading.active_count(),
        "open files": _open_files(),
        "directory": os.getcwd(),
        "environment": _digest(repr(sorted(os.environ.items())).encode()),
    }


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What differs, in words."""
    return [f"{k}: {v} -> {after[k]}" for k, v in before.items() if after[k] != v]


def _open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]
