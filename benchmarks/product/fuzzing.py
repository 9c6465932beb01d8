"""X1: spoiled files end in a typed error or in a result, and none of them is executed."""

from __future__ import annotations

import tempfile
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

from benchmarks.frame import Context, Line, row
from benchmarks.isolate import run_job
from benchmarks.product.loaders import LOADERS, Loader
from probkit.errors import ProbkitError

__all__ = ["Fault", "faults"]


class Fault(NamedTuple):
    """A mutation that ended in something else than a result or an error of ours."""

    loader: str
    way: str
    seed: int
    error: str


@row("X1", "spoiled files")
def spoiled_files(context: Context) -> Iterator[Line]:
    """Each loader in a process of its own: a parser's crash would take the row down."""
    count = context.size(1000, 10)
    total = 0
    for name in LOADERS:
        got = run_job("benchmarks.product.fuzzing_job", name, count)
        total += got["files"]
        found = got["faults"]
        reason = found[0] if found else None
        yield Line("faults", f"{name}: faults in {got['files']} files", len(found), reason=reason)
    yield Line("files", "spoiled files in all", total)


def faults(loader: Loader, seeds: range) -> Iterator[Fault]:
    """Spoil a loader's file once a seed and a way, and read it."""
    with tempfile.TemporaryDirectory() as name:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # seeded noise, few draws: the files are examples
            path = loader.write(Path(name))
            loader.read(path)
        target = loader.target(path)
        sound = target.read_bytes()
        for way in loader.ways:
            for seed in seeds:
                target.write_bytes(way(sound, Random(seed)))
                error = _outcome(loader, path)
                if error is not None:
                    yield Fault(loader.name, way.__name__, seed, error)


def _outcome(loader: Loader, path: Path) -> str | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of spoiled numbers; the error is what counts
        try:
            loader.read(path)
        except ProbkitError:
            return None
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)
            ours = [f for f in where if "/probkit/" in f.filename] or [where[-1]]
            place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
            return f"{type(error).__name__} at {place}: {str(error)[:120]}"
    return None
