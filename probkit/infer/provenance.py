"""How a result came to be: versions, seed, dtype, device, settings and a digest of the data."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

__all__ = ["data_digest", "provenance", "settings_digest", "stored", "versions"]

_PACKAGES = ("torch", "pyro-ppl", "gpytorch", "linear-operator", "numpy", "xarray", "arviz-base")


def versions() -> dict[str, str]:
    """Versions of Python, probkit and the packages that results depend on."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    from probkit import __version__

    found = {"python": platform.python_version(), "probkit": __version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def stored(tensor: Tensor) -> Tensor:
    """The numbers as they lie in a file: on the CPU, in order, conjugate views written out."""
    return tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()


def data_digest(*tensors: Tensor | None) -> str:
    """SHA-256 over shapes, dtypes and bytes of tensors.

    Example:
        >>> data_digest(torch.zeros(2)) == data_digest(torch.zeros(2))
        True
    """
    digest = hashlib.sha256()
    for tensor in tensors:
        if tensor is None:
            digest.update(b"none")
            continue
        array = stored(tensor)
        digest.update(f"{array.dtype}{tuple(array.shape)}".encode())
        digest.update(array.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def settings_digest(settings: Mapping[str, Any], data: str) -> str:
    """Identifier of a fit: its settings and its data; guards against a foreign checkpoint."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256((text + data).encode()).hexdigest()


def provenance(
    *,
    engine: str,
    reason: str,
    settings: Mapping[str, Any],
    seed: int | None,
    dtype: torch.dtype,
    device: torch.device | str,
    data: str,
) -> dict[str, Any]:
    """The record that every result carries.

    Args:
        engine: name of the engine that ran.
        reason: why it was chosen.
        settings: the settings of model and engine.
        data: digest of the data.
    """
    return {
        "engine": engine,
        "reason": reason,
        "settings": dict(settings),
        "seed": seed,
        "dtype": str(dtype),
        "device": str(device),
        "data": data,
        "versions": versions(),
    }
