"""``probkit doctor``: what results and speed depend on, and what is wrong with it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from typing import NamedTuple

from probkit.cli.running import Lines

__all__ = ["doctor"]

_TESTED_PYTHON = ("3.11",)
# what is known to break when both sides are installed, with the remedy
_BAD_PAIRS = (
    ("nolds>=0.6", "python<3.12", "nolds fails at import: pip install nolds==0.5.2"),
    ("numpy>=2", "netCDF4<1.7", "netCDF4 was built for numpy 1: pip install -U netCDF4"),
)


class _Finding(NamedTuple):
    name: str
    value: str
    verdict: str = "ok"  # or "note", or "wrong"
    remedy: str = ""


def doctor() -> Lines:
    """Check versions, compiler, threads and device.

    Exit code 1 if something is wrong: a requirement that is not met, or two packages that are known
    to break together.
    """
    found = [*_packages(), *_bad_pairs(), _compiler(), _cache(), _threads(), _device()]
    for finding in found:
        remedy = f"  ({finding.remedy})" if finding.remedy else ""
        yield f"{finding.verdict:6s} {finding.name:18s} {finding.value}{remedy}"
    wrong = [finding.name for finding in found if finding.verdict == "wrong"]
    return {
        "status": {"name": "wrong" if wrong else "ok", "verdict": "red" if wrong else "green"},
        "wrong": wrong,
        "findings": [finding._asdict() for finding in found],
    }


def _packages() -> Iterator[_Finding]:
    """Python and every requirement of probkit, against the range that it states."""
    from importlib import metadata

    from packaging.requirements import Requirement

    python = platform.python_version()
    tested = python.rpartition(".")[0] in _TESTED_PYTHON
    advice = "" if tested else f"tested: {', '.join(_TESTED_PYTHON)}"
    yield _Finding("python", python, "ok" if tested else "note", advice)
    try:
        yield _Finding("probkit", metadata.version("probkit"))
        stated = metadata.requires("probkit") or []
    except metadata.PackageNotFoundError:
        from probkit.infer.provenance import versions

        yield _Finding("probkit", "not installed", "note", "runs from a checkout: pip install -e .")
        for name in sorted(set(versions()) - {"python", "probkit"}):
            yield _Finding(name, versions()[name])
        return
    for requirement in map(Requirement, stated):
        core = requirement.marker is None
        has = _installed(requirement.name)
        if has is None:
            if core:
                yield _Finding(requirement.name, "missing", "wrong", f"needs {requirement}")
            continue
        fits = requirement.specifier.contains(has, prereleases=True)
        if core or not fits:
            advice = "" if fits else f"needs {requirement.name}{requirement.specifier}"
            yield _Finding(requirement.name, has, "ok" if fits else "wrong", advice)


def _bad_pairs() -> Iterator[_Finding]:
    """Pairs of versions that are known to break together."""
    from packaging.requirements import Requirement

    for left, right, remedy in _BAD_PAIRS:
        pair = [Requirement(left), Requirement(right)]
        has = [_installed(r.name) for r in pair]
        if all(
            v is not None and r.specifier.contains(v, prereleases=True)
            for r, v in zip(pair, has, strict=True)
        ):
            names = " + ".join(r.name for r in pair)
            yield _Finding(names, " + ".join(map(str, has)), "wrong", remedy)


def _installed(name: str) -> str | None:
    from importlib import metadata

    if name == "python":
        return platform.python_version()
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _compiler() -> _Finding:
    from probkit.infer.native.build import compiler_name

    name = compiler_name()
    if name is None:
        return _Finding("c++ compiler", "none", "note", "fits run eagerly; install g++ or clang++")
    return _Finding("c++ compiler", name)


def _cache() -> _Finding:
    from probkit.infer.native.build import cache_directory

    try:
        directory = cache_directory()
    except OSError as error:
        advice = "set PROBKIT_CACHE_DIR to a folder that can be written"
        return _Finding("native cache", str(error), "note", advice)
    if not os.access(directory, os.W_OK):
        return _Finding(
            "native cache", f"{directory} is read-only", "note", "set PROBKIT_CACHE_DIR"
        )
    return _Finding("native cache", str(directory))


def _threads() -> _Finding:
    import torch

    threads, cores = torch.get_num_threads(), len(_cores())
    if threads > cores:
        advice = f"set OMP_NUM_THREADS={cores}: more threads than cores are slower"
        return _Finding("threads", f"{threads} on {cores} cores", "note", advice)
    return _Finding("threads", f"{threads} of {cores} cores")


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _device() -> _Finding:
    import torch

    if torch.version.cuda is None and os.path.exists("/proc/driver/nvidia/version"):
        advice = "an NVIDIA driver is here: install PyTorch's CUDA build to use it"
        return _Finding("cuda", "torch is built for the CPU alone", "note", advice)
    if not torch.cuda.is_available():
        return _Finding("cuda", "none")
    return _Finding(
        "cuda", f"{torch.cuda.get_device_name()} (torch built for {torch.version.cuda})"
    )
