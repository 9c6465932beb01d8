"""Checkpoints: one file holding the whole state of a loop, replaced atomically.

A checkpoint is a safetensors file: the state's tensors, the generator's state, and in the header
the step, the history and the digest of the fit it belongs to. It is written beside its final name
and moved over it, so that a kill at any moment leaves either the old or the new one.
"""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from probkit.errors import CheckpointError, message
from probkit.infer.protocols import State
from probkit.infer.provenance import stored

__all__ = ["Checkpoint", "Checkpointer"]

_GENERATOR = "__generator__"
_FILE = "checkpoint.safetensors"


@dataclass
class Checkpoint:
    """What a loop needs to go on."""

    state: State
    generator_state: torch.Tensor
    step: int
    history: dict[str, list[float]]

    def restore(self, generator: torch.Generator) -> None:
        """Set a generator to where the fit stopped.

        Raises:
            CheckpointError: the state is not one of this kind of generator.
        """
        try:
            generator.set_state(self.generator_state)
        except (RuntimeError, TypeError) as error:
            raise CheckpointError(
                message(
                    f"The checkpoint's random state does not fit: {error}",
                    where=str(generator.device),
                    remedy="resume on the kind of device where the fit began, or start it anew",
                )
            ) from error


@dataclass(frozen=True)
class Checkpointer:
    """Writes and reads the checkpoint of one fit.

    Args:
        directory: where the file lives; created when first written.
        digest: identifies model, settings and data; a checkpoint of another fit is refused.
        every: steps between two checkpoints.
    """

    directory: Path
    digest: str
    every: int = 5

    @property
    def path(self) -> Path:
        return self.directory / _FILE

    def write(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint on disk."""
        self.directory.mkdir(parents=True, exist_ok=True)
        header = {
            "format": "1",
            "digest": self.digest,
            "step": str(checkpoint.step),
            "history": json.dumps(checkpoint.history),
        }
        tensors = {k: stored(v) for k, v in checkpoint.state.items()}
        tensors[_GENERATOR] = checkpoint.generator_state
        header["crc32"] = _checksum(tensors)
        temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
        save_file({k: v.clone() for k, v in tensors.items()}, temporary, metadata=header)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(self.path)

    def read(self, device: torch.device | str = "cpu") -> Checkpoint | None:
        """The checkpoint on disk, or None if there is none.

        Raises:
            CheckpointError: the file is damaged or belongs to another fit.
        """
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as stream:
                header = stream.metadata() or {}
                tensors = {name: stream.get_tensor(name) for name in list(stream.keys())}
            digest = header["digest"]
            found = Checkpoint(
                {name: value.to(device) for name, value in tensors.items() if name != _GENERATOR},
                tensors[_GENERATOR],
                int(header["step"]),
                _history(json.loads(header["history"])),
            )
            if header.get("crc32", "") not in ("", _checksum(tensors)):
                raise ValueError("the tensors are not those that were written")
        except Exception as error:  # a damaged file can fail in any way
            raise CheckpointError(
                message(
                    f"The checkpoint cannot be read: {type(error).__name__}: {error}",
                    where=str(self.path),
                    remedy="delete it and start the fit anew",
                )
            ) from error
        if digest != self.digest:
            raise CheckpointError(
                message(
                    "The checkpoint belongs to another fit (other data, model or settings)",
                    where=str(self.path),
                    got=digest[:12],
                    expected=self.digest[:12],
                    remedy="resume with the same data and settings, or choose an empty directory",
                )
            )
        return found

    def clear(self) -> None:
        """Remove the checkpoint, once the fit is complete."""
        self.path.unlink(missing_ok=True)


def _checksum(tensors: State) -> str:
    """CRC-32 of all bytes: finds damage, not malice, and costs less than writing them."""
    found = 0
    for name in sorted(tensors):
        flat = stored(tensors[name]).reshape(-1)
        found = zlib.crc32(flat.view(torch.uint8).numpy().data, zlib.crc32(name.encode(), found))
    return str(found)


def _history(columns: dict[str, list[float]]) -> dict[str, list[float]]:
    """Columns of numbers of one length, those of the loop among them.

    Raises:
        KeyError, TypeError, ValueError: they are anything else.
    """
    lengths = {len(columns[name]) for name in ("objective", "segment", "converged", "seconds")}
    lengths |= {len([float(value) for value in column]) for column in columns.values()}
    if len(lengths) != 1:
        raise ValueError(f"columns of the history have lengths {sorted(lengths)}")
    return columns
