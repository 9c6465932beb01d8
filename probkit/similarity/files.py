"""Release files: safetensors with a JSON header; nothing in them is executed.

The header holds format, design, relation, budget and noise; a SHA-256 digest over header and
numbers finds truncation and alteration. It is a checksum, not a signature: who can write the file
can also recompute it.
"""

from __future__ import annotations

import hashlib
import json
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from probkit.errors import message
from probkit.privacy.budget import Budget, check_relation
from probkit.privacy.errors import ReleaseFileError
from probkit.privacy.mechanism import Noise
from probkit.similarity.design import design_from_spec
from probkit.similarity.release import Release

if TYPE_CHECKING:
    from probkit.similarity.sketch import Sketch

__all__ = ["load_release", "save_raw", "save_release"]

_FORMAT = 1
_PUBLIC = "public."


def save_release(release: Release, path: str | Path) -> Path:
    """Write a release; see ``Release.save``."""
    noise = release.noise
    tensors = {
        "values": release.values,
        "noise_scale": torch.from_numpy(np.asarray(noise.scale, dtype=np.float64)),
        "noise_shift": torch.from_numpy(np.asarray(noise.shift, dtype=np.int64)),
        "noise_size": torch.from_numpy(np.asarray(noise.size, dtype=np.int64)),
    }
    tensors |= {_PUBLIC + k: v for k, v in release.design.tensors().items()}
    header = {
        "format": _FORMAT,
        "design": release.design.spec(),
        "relation": release.relation,
        "budget": {"kind": release.budget.kind, "amount": str(release.budget.amount)},
        "noise": noise.kind,
        "num_records": release.count,
        "max_rows_per_user": release.max_rows_per_user,
        "private": release.private,
        "notes": release.notes,
    }
    return _write(Path(path), header, tensors)


def load_release(path: str | Path) -> Release:
    """Read a release; see ``Release.load``."""
    header, tensors = _read(Path(path))
    try:
        noise = Noise(
            header["noise"],
            tensors["noise_scale"].numpy(),
            tensors["noise_shift"].numpy(),
            tensors["noise_size"].numpy(),
        )
        public = {k.removeprefix(_PUBLIC): v for k, v in tensors.items() if k.startswith(_PUBLIC)}
        release = Release(
            design=design_from_spec(header["design"], public),
            relation=check_relation(header["relation"]),
            budget=Budget(header["budget"]["kind"], Fraction(header["budget"]["amount"])),
            noise=noise,
            values=tensors["values"],
            count=header["num_records"],
            max_rows_per_user=header["max_rows_per_user"],
            private=header["private"],
            notes=header["notes"],
        )
        _check_types(release)
        blocks = release.design.blocks(release.relation, release.max_rows_per_user)
        if len(release.values) != blocks.num_coordinates or noise.kind not in _KINDS:
            raise ValueError("numbers do not fit the design")
        fits = noise.scale.shape == noise.shift.shape == noise.size.shape == blocks.size.shape
        if not fits or (blocks.size != noise.size).any() or not (noise.scale > 0).all():
            raise ValueError("noise does not fit the design")
        if noise.loss(blocks) > float(release.budget.amount) * (1 + 1e-6):
            raise ValueError("the noise is smaller than the budget claims")
        release._decoder  # noqa: B018 - needed at the first query; an impossible design fails here
    except Exception as error:  # a header that was altered by hand can fail in any way
        raise ReleaseFileError(
            message("The file is not a consistent release", where=str(path), got=str(error))
        ) from error
    return release


def _check_types(release: Release) -> None:
    """What later computations take for granted.

    Raises:
        TypeError, ValueError: one of the entries is of another type or impossible.
    """
    integer = release.noise.kind != "knorm"
    if release.values.dim() != 1 or release.values.is_floating_point() is integer:
        raise TypeError(f"values of {release.values.dtype}, shape {tuple(release.values.shape)}")
    noise = release.noise
    kinds = [str(a.dtype) for a in (noise.scale, noise.shift, noise.size)]
    if kinds != ["float64", "int64", "int64"]:
        raise TypeError(f"noise of {kinds}")
    count, rows = release.count, release.max_rows_per_user
    if (count is None) is (release.relation == "replace") or type(count) not in (int, type(None)):
        raise TypeError(f"num_records {count!r} under {release.relation!r}")
    if type(rows) is not int or rows < 1 or (count is not None and count < 0):
        raise ValueError(f"num_records {count!r}, max_rows_per_user {rows!r}")
    if type(release.private) is not bool or not isinstance(release.notes, dict):
        raise TypeError("private or notes")


def save_raw(sketch: Sketch, path: str | Path) -> Path:
    """Write a raw state; PRIVATE, see ``Sketch.save``."""
    header = {"format": _FORMAT, "PRIVATE": True, "design": sketch.design.spec()}
    header |= {"relation": sketch.relation, "num_records": sketch.count}
    return _write(Path(path), header, {"private_state": sketch.state})


_KINDS = ("laplace", "gaussian", "knorm")


def _write(path: Path, header: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    text = json.dumps(header, sort_keys=True)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"probkit": text, "sha256": _digest(text, plain)}
    temporary = path.with_name(path.name + ".part")
    save_file(plain, str(temporary), metadata)
    temporary.replace(path)
    return path


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in list(file.keys())}
    except (SafetensorError, OSError, ValueError) as error:
        raise ReleaseFileError(
            message("The file cannot be read", where=str(path), got=str(error))
        ) from error
    text = metadata.get("probkit", "")
    try:
        header = json.loads(text)
        version = header["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ReleaseFileError(
            message("The file has no header of probkit", where=str(path))
        ) from error
    if version != _FORMAT:
        raise ReleaseFileError(
            message("The file is of another version", where="format", got=version, expected=_FORMAT)
        )
    if metadata.get("sha256") != _digest(text, tensors):
        raise ReleaseFileError(
            message("The file was altered or damaged", where="sha256", got="another digest")
        )
    return header, tensors


def _digest(text: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
