"""``probkit doctor``: what results and speed depend on, and what is wrong with it."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Annotated, NamedTuple

import typer

__all__ = ["doctor"]

_TESTED_PYTHON = ("3.11",)


class _Finding(NamedTuple):
    name: str
    value: str
    verdict: str = "ok"  # or "note", or "wrong"
    remedy: str = ""


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Versions, compiler, threads and device; exit code 1 if something is wrong."""
    found = [*_packages(), _compiler(), _cache(), _threads(), _device()]
    if as_json:
        typer.echo(json.dumps([finding._asdict() for finding in found], indent=2))
    else:
        for finding in found:
            remedy = f"  ({finding.remedy})" if finding.remedy else ""
            typer.echo(f"{finding.verdict:6s} {finding.name:18s} {finding.value}{remedy}")
    if any(finding.verdict == "wrong" for finding in found):
        raise typer.Exit(1)


def _packages() -> Iterator[_Finding]:
    """Python and every requirement of probkit, against the range that it states."""
    from packaging.requirements import Requirement

    python = platform.python_version()
    tested = python.rpartition(".")[0] in _TESTED_PYTHON
    advice = "" if tested else f"tested: {', '.join(_TESTED_PYTHON)}"
    yield _Finding("python", python, "ok" if tested else "note", advice)
    try:
        yield _Finding("probkit", version("probkit"))
        stated = requires("probkit") or []
    except PackageNotFoundError:
        from probkit.infer.provenance import versions

        yield _Finding("probkit", "not installed", "note", "runs from a checkout: pip install -e .")
        for name in sorted(set(versions()) - {"python", "probkit"}):
            yield _Finding(name, versions()[name])
        return
    for requirement in map(Requirement, stated):
        core = requirement.marker is None
        try:
            has = version(requirement.name)
        except PackageNotFoundError:
            if core:
                yield _Finding(requirement.name, "missing", "wrong", f"needs {requirement}")
            continue
        fits = requirement.specifier.contains(has, prereleases=True)
        if core or not fits:
            advice = "" if fits else f"needs {requirement.name}{requirement.specifier}"
            yield _Finding(requirement.name, has, "ok" if fits else "wrong", advice)


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

    if not torch.cuda.is_available():
        return _Finding("cuda", "none")
    return _Finding(
        "cuda", f"{torch.cuda.get_device_name()} (torch built for {torch.version.cuda})"
    )
