"""Ways to spoil a file: bytes at random, and hostile values where a format has structure.

A mutation is a function ``(bytes, Random) -> bytes``. Those that know the format keep the file well
formed (checksums included), so that what they change reaches the code behind the parser.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor

__all__ = ["Mutation", "arrays", "cells", "flat_bytes", "json_text", "payload", "tensors"]

Mutation = Callable[[bytes, Random], bytes]

_DEEP = "[" * 100_000 + "]" * 100_000
_VALUES: tuple[Any, ...] = (
    None,
    True,
    "",
    "nan",
    "../../etc/passwd",
    "posix.system",
    0,
    -1,
    3,
    2**40,
    2**70,
    1e400,
    float("nan"),
    -0.5,
    [],
    [[]],
    {},
    {"a": None},
    [1, "a"],
    [None] * 3,
)


class _Payload:
    """Unpickled, it makes the file ``path``: the proof that code was executed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def payload(sign: Path) -> bytes:
    """A pickle that makes the file ``sign`` when it is loaded."""
    return pickle.dumps(_Payload(sign))


def flat_bytes(data: bytes, random: Random) -> bytes:
    """Flip, cut, insert, repeat or zero a stretch of bytes."""
    if not data:
        return random.randbytes(random.randrange(64))
    kind = random.randrange(6)
    start = random.randrange(len(data))
    length = random.choice((1, 1, 4, 16, 256))
    if kind == 0:
        return data[:start]
    if kind == 1:
        return data[:start] + random.randbytes(length) + data[start:]
    if kind == 2:
        return data[:start] + data[start + length :]
    if kind == 3:
        return data[:start] + data[start : start + length] * 3 + data[start:]
    middle = bytes(length) if kind == 4 else random.randbytes(length)
    return (data[:start] + middle + data[start + length :])[: len(data)]


def json_text(data: bytes, random: Random) -> bytes:
    """Replace, remove or add one node of a JSON text; sometimes nest it beyond any parser."""
    if random.randrange(25) == 0:
        return _DEEP.encode()
    return json.dumps(_spoil(json.loads(data), random)).encode()


def tensors(data: bytes, random: Random) -> bytes:
    """Change one tensor of a safetensors file, or one entry of its header; digests are renewed."""
    content = load(data)
    metadata = _metadata(data)
    if metadata and random.randrange(2):
        name = random.choice(sorted(set(metadata) - {"sha256"}))
        text = metadata[name]
        try:
            metadata[name] = json_text(text.encode(), random).decode()
        except ValueError:
            metadata[name] = random.choice(["", "-1", "x", text[:3], "1e400", _DEEP])
        if random.randrange(8) == 0:
            del metadata[name]
    else:
        _spoil_tensor(content, random)
    if "sha256" in metadata:
        from probkit.similarity.files import _digest

        metadata["sha256"] = _digest(metadata.get("probkit", ""), content)
    return save(content, metadata or None)


def arrays(data: bytes, random: Random) -> bytes:
    """Change one array of an npz file."""
    with np.load(io.BytesIO(data)) as stored:
        content: dict[str, Any] = {name: stored[name] for name in stored.files}
    name = random.choice(sorted(content))
    value = content[name]
    content[name] = random.choice(
        [
            np.array(["a", "b"]),
            np.array([], dtype=value.dtype),
            value.astype(np.float16),
            value.astype(np.complex64),
            np.full_like(value, np.nan),
            value[..., None],
            value.ravel(),
            value.ravel()[:1],
            np.array(3),
            np.array([1, 2**62]),
            np.array([True, False]),
            np.array(["2020-01-01"], dtype="datetime64[D]"),
            np.zeros(3, dtype=[("a", "f8"), ("b", "i4")]),
            np.zeros((0, 3)),
            np.array([b"x"]),
            np.float128(value) if hasattr(np, "float128") and value.dtype.kind != "c" else value,
        ]
    )
    if random.randrange(6) == 0:
        content[random.choice(["A_0", "A_9", "A_x", "z"])] = content.pop(name)
    buffer = io.BytesIO()
    np.savez(buffer, **content)
    return buffer.getvalue()


def pickled_array(data: bytes, code: bytes) -> bytes:
    """The npz file with the pickle ``code`` in the place of its first array's data."""
    buffer = io.BytesIO()
    header = io.BytesIO()
    description = {"descr": "|O", "fortran_order": False, "shape": ()}
    np.lib.format.write_array_header_1_0(header, description)
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(buffer, "w") as target:
        for k, name in enumerate(source.namelist()):
            target.writestr(name, header.getvalue() + code if k == 0 else source.read(name))
    return buffer.getvalue()


def cells(data: bytes, random: Random) -> bytes:
    """Change one cell, or the shape, of a CSV text."""
    rows = [line.split(",") for line in data.decode().splitlines() if line]
    row = random.choice(rows)
    place = random.randrange(len(row))
    junk = ["", "nan", "inf", "-1e400", "x", '"', '"a,b"', "2020-13-45", "1e5000", "\x00", "é" * 9]
    kind = random.randrange(5)
    if kind == 0:
        del row[place + 1 :]
    elif kind == 1:
        row.append(random.choice(junk))
    elif kind == 2:
        for other in rows[1:]:
            other[min(place, len(other) - 1)] = random.choice(junk)
    elif kind == 3:
        rows[0][min(place, len(rows[0]) - 1)] = random.choice(["", rows[0][0], "y", "1"])
    else:
        row[place] = random.choice(junk)
    return "\n".join(",".join(r) for r in rows).encode()


def _spoil(tree: Any, random: Random) -> Any:
    """The tree with one of its nodes changed."""
    if isinstance(tree, dict) and tree and random.randrange(6):
        key = random.choice(sorted(tree))
        if random.randrange(6) == 0:
            return {k: v for k, v in tree.items() if k != key}
        return {**tree, key: _spoil(tree[key], random)}
    if isinstance(tree, list) and tree and random.randrange(6):
        place = random.randrange(len(tree))
        if random.randrange(6) == 0:
            return tree[:place] + tree[place + 1 :]
        return [*tree[:place], _spoil(tree[place], random), *tree[place + 1 :]]
    return random.choice(_VALUES)


def _spoil_tensor(content: dict[str, Tensor], random: Random) -> None:
    name = random.choice(sorted(content))
    value = content[name]
    kind = random.randrange(8)
    if kind == 0:
        del content[name]
    elif kind == 1:
        content["other"] = content.pop(name)
    elif kind == 2:
        content[name] = value.reshape(-1)[: value.numel() // 2].clone()
    elif kind == 3:
        content[name] = value[None].clone()
    elif kind == 4:
        content[name] = value.to(random.choice([torch.int8, torch.float16, torch.bool]))
    elif kind == 5:
        content[name] = torch.full_like(value, -1)
    elif kind == 6 and value.is_floating_point():
        content[name] = torch.full_like(value, float("nan"))
    else:
        content[name] = torch.zeros(0)


def _metadata(data: bytes) -> dict[str, str]:
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        file.write(data)
        file.flush()
        with safe_open(file.name, framework="pt") as stream:
            return dict(stream.metadata() or {})
