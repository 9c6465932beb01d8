"""Checkpoints: one file holding the whole state of a loop, replaced atomically.

A checkpoint is a safetensors file: the state's tensors, the generator's state, and in the header
the step, the history and the digest of the fit it belongs to. It is written beside its final name
and moved over it, so that a kill at any moment leaves either the old or the new one.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from probkit.errors import CheckpointError, message
from probkit.infer.protocols import State

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
        tensors = {k: v.detach().cpu().contiguous() for k, v in checkpoint.state.items()}
        tensors[_GENERATOR] = checkpoint.generator_state
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
                header = stream.metadata()
                tensors = {name: stream.get_tensor(name) for name in list(stream.keys())}
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                message(
                    f"The checkpoint cannot be read: {error}",
                    where=str(self.path),
                    remedy="delete it and start the fit anew",
                )
            ) from error
        if header["digest"] != self.digest:
            raise CheckpointError(
                message(
                    "The checkpoint belongs to another fit (other data, model or settings)",
                    where=str(self.path),
                    got=header["digest"][:12],
                    expected=self.digest[:12],
                    remedy="resume with the same data and settings, or choose an empty directory",
                )
            )
        generator_state = tensors.pop(_GENERATOR)
        state = {name: value.to(device) for name, value in tensors.items()}
        return Checkpoint(
            state, generator_state, int(header["step"]), json.loads(header["history"])
        )

    def clear(self) -> None:
        """Remove the checkpoint, once the fit is complete."""
        self.path.unlink(missing_ok=True)
