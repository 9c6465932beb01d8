"""Saved results: ``manifest.json``, ``state.safetensors``, ``posterior.nc``; no pickle, no data.

The manifest names the posterior's registered class, its spec and the record of the fit; the
safetensors file holds its tensors; the netCDF file is for ArviZ and is not needed for loading.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import xarray as xr
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from probkit.errors import CheckpointError, message
from probkit.infer.protocols import PosteriorLike, State
from probkit.infer.registry import lookup, registered_name

__all__ = ["FORMAT_VERSION", "load_parts", "save_parts"]

FORMAT_VERSION = 1
_MANIFEST, _STATE, _POSTERIOR = "manifest.json", "state.safetensors", "posterior.nc"
_IMPORTANCE = "importance."
_RECORD = ("status", "history", "diagnostics", "provenance", "detail")


def save_parts(
    directory: Path,
    posterior: PosteriorLike,
    record: dict[str, Any],
    tree: xr.DataTree,
    *,
    importance: State,
) -> Path:
    """Write the three files; each is moved into place when complete.

    ``importance`` are the tensors of the weighted draws, kept beside those of the posterior.
    """
    directory.mkdir(parents=True, exist_ok=True)
    manifest = {
        "format_version": FORMAT_VERSION,
        "class": registered_name(posterior),
        "spec": posterior.spec(),
        **record,
    }
    text = json.dumps(manifest, indent=1, default=str)
    every = posterior.tensors() | {_IMPORTANCE + k: v for k, v in importance.items()}
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in every.items()}
    temporary = {name: directory / f".{name}.tmp" for name in (_MANIFEST, _STATE, _POSTERIOR)}
    temporary[_MANIFEST].write_text(text, encoding="utf-8")
    save_file(tensors, temporary[_STATE])
    tree.to_netcdf(temporary[_POSTERIOR], engine="h5netcdf")
    for name, path in temporary.items():
        path.replace(directory / name)
    return directory


def load_parts(directory: Path) -> tuple[Any, dict[str, Any], State]:
    """Rebuild the posterior and return it with the record of the fit and the weighted draws.

    Raises:
        CheckpointError: files missing, damaged, or of a newer format.
    """
    try:
        manifest = json.loads((directory / _MANIFEST).read_text(encoding="utf-8"))
        tensors = load_file(directory / _STATE)
    except (OSError, json.JSONDecodeError, SafetensorError) as error:
        raise CheckpointError(
            message(
                f"No readable result: {error}",
                where=str(directory),
                expected=f"{_MANIFEST} and {_STATE}",
                remedy="give the directory that save() wrote",
            )
        ) from error
    missing = sorted({"format_version", "class", "spec", *_RECORD} - set(manifest))
    if missing:
        raise CheckpointError(
            message(
                "The manifest is incomplete",
                where=str(directory / _MANIFEST),
                got=f"no {missing}",
                remedy="give the directory that save() wrote",
            )
        )
    found = manifest["format_version"]
    if found > FORMAT_VERSION:
        raise CheckpointError(
            message(
                "The result was written by a newer version of probkit",
                where=str(directory / _MANIFEST),
                got=f"format {found}",
                expected=f"format <= {FORMAT_VERSION}",
                remedy="upgrade probkit",
            )
        )
    extra = {k: tensors.pop(k) for k in list(tensors) if k.startswith(_IMPORTANCE)}
    posterior = lookup(manifest["class"]).from_spec(manifest["spec"], tensors)
    return posterior, manifest, {k.removeprefix(_IMPORTANCE): v for k, v in extra.items()}
