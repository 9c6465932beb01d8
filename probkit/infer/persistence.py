"""Saved results: ``manifest.json``, ``state.safetensors``, ``posterior.nc``; no pickle, no data.

The manifest names the posterior's registered class, its spec and the record of the fit; the
safetensors file holds its tensors; the netCDF file is for ArviZ and is not needed for loading.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import xarray as xr
from safetensors import SafetensorError
from safetensors.torch import load, save

from probkit.errors import CheckpointError, message
from probkit.infer.protocols import PosteriorLike, State
from probkit.infer.provenance import stored
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
    every = posterior.tensors() | {_IMPORTANCE + k: v for k, v in importance.items()}
    content = save({k: stored(v).clone() for k, v in every.items()})
    manifest = {
        "format_version": FORMAT_VERSION,
        "class": registered_name(posterior),
        "spec": posterior.spec(),
        "state_sha256": hashlib.sha256(content).hexdigest(),
        **record,
    }
    text = json.dumps(manifest, indent=1, default=str)
    temporary = {name: directory / f".{name}.tmp" for name in (_MANIFEST, _STATE, _POSTERIOR)}
    temporary[_MANIFEST].write_text(text, encoding="utf-8")
    temporary[_STATE].write_bytes(content)
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
        content = (directory / _STATE).read_bytes()
        tensors = load(content)
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise CheckpointError(
            message(
                f"No readable result: {error}",
                where=str(directory),
                expected=f"{_MANIFEST} and {_STATE}",
                remedy="give the directory that save() wrote",
            )
        ) from error
    _check_manifest(manifest, directory)
    if manifest.get("state_sha256", "") not in ("", hashlib.sha256(content).hexdigest()):
        raise CheckpointError(
            message(
                "The tensors are not those that were saved with this manifest",
                where=str(directory / _STATE),
                causes=("the file was damaged", "files of two results were mixed"),
            )
        )
    extra = {k: tensors.pop(k) for k in list(tensors) if k.startswith(_IMPORTANCE)}
    cls = lookup(manifest["class"])
    try:
        posterior = cls.from_spec(manifest["spec"], tensors)
    except Exception as error:  # a spec that was altered by hand can fail in any way
        raise CheckpointError(
            message(
                f"Manifest and tensors do not fit each other: {type(error).__name__}: {error}",
                where=str(directory),
                remedy="give the directory that save() wrote",
            )
        ) from error
    return posterior, manifest, {k.removeprefix(_IMPORTANCE): v for k, v in extra.items()}


def _check_manifest(manifest: Any, directory: Path) -> None:
    """Every entry is there and of its type."""
    if not isinstance(manifest, dict):
        manifest = {}
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
    if not isinstance(found, int) or found > FORMAT_VERSION:
        raise CheckpointError(
            message(
                "The result was written by a newer version of probkit",
                where=str(directory / _MANIFEST),
                got=f"format {found}",
                expected=f"format <= {FORMAT_VERSION}",
                remedy="upgrade probkit",
            )
        )
    types = {"class": str, "spec": dict, "status": str, "history": dict, "detail": str}
    types |= {"diagnostics": dict, "provenance": dict}
    wrong = [name for name, kind in types.items() if not isinstance(manifest[name], kind)]
    columns = [] if "history" in wrong else list(manifest["history"].values())
    if not all(isinstance(c, list) and all(isinstance(v, float | int) for v in c) for c in columns):
        wrong.append("history")
    if wrong:
        raise CheckpointError(
            message(
                "The manifest has entries of another type",
                where=str(directory / _MANIFEST),
                got=f"{type(manifest[wrong[0]]).__name__} for {wrong[0]!r}",
                remedy="give the directory that save() wrote",
            )
        )
