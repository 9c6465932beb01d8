"""C++ source to a loaded library, through a cache that outlives the process.

The cache is keyed by the source, the compiler's version, its flags and the processor. An entry
whose content does not match its recorded digest is built again.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from importlib.resources import files
from pathlib import Path

from torch import Tensor

from probkit.infer.native.lowering import Unsupported

__all__ = [
    "cache_directory",
    "compiler_name",
    "library",
    "packaged_library",
    "pointer",
    "resource",
]

_FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared", "-fopenmp-simd"),
    # sums are reordered only where a pragma says so: under -fassociative-math x + y - y is x even
    # for y = NaN, and the loops test for numbers that are not finite
    *("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros"),
    "-Wno-unknown-pragmas",
)


def library(source: str) -> ctypes.CDLL:
    """Compile (or find in the cache) and load.

    Raises:
        Unsupported: there is no C++ compiler, or it fails.
    """
    compiler, version = _compiler()
    identity = "\n".join([source, compiler, version, *_FLAGS, _processor()])
    key = hashlib.sha256(identity.encode()).hexdigest()[:32]
    directory = cache_directory()
    path, record = directory / f"{key}.so", directory / f"{key}.sha256"
    if not _intact(path, record):
        _build(compiler, source, path, record)
    return ctypes.CDLL(str(path))


def packaged_library(package: str, name: str) -> ctypes.CDLL | None:
    """Code that comes with a package, loaded; None where there is no C++ compiler."""
    try:
        return library(resource(name, package))
    except Unsupported:
        return None


def pointer(values: Tensor) -> ctypes.c_void_p:
    """To contiguous data that the caller keeps alive."""
    return ctypes.c_void_p(values.data_ptr())


def resource(name: str, package: str = "probkit.infer.native") -> str:
    """A C++ source file that comes with a package."""
    return files(package).joinpath(name).read_text(encoding="utf-8")


def cache_directory() -> Path:
    """``$PROBKIT_CACHE_DIR``, else ``probkit`` in the user's cache directory."""
    chosen = os.environ.get("PROBKIT_CACHE_DIR")
    base = Path(chosen) if chosen else _user_cache() / "probkit"
    directory = base / "native"
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return directory


def compiler_name() -> str | None:
    """Version line of the C++ compiler that fits are compiled with; None if there is none."""
    try:
        path, line = _compiler()
    except Unsupported:
        return None
    return line or path


def _user_cache() -> Path:
    found = os.environ.get("XDG_CACHE_HOME")
    return Path(found) if found else Path.home() / ".cache"


def _build(compiler: str, source: str, path: Path, record: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        text, built = Path(folder) / "model.cpp", Path(folder) / "model.so"
        text.write_text(source, encoding="utf-8")
        command = [compiler, *_FLAGS, str(text), "-o", str(built), *_libraries(compiler)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            first = (run.stderr.strip().splitlines() or ["no message"])[0]
            raise Unsupported(f"the C++ compiler failed: {first}")
        digest = hashlib.sha256(built.read_bytes()).hexdigest()
        os.replace(built, path)
        mark = Path(folder) / "digest"
        mark.write_text(digest, encoding="utf-8")
        os.replace(mark, record)


def _intact(path: Path, record: Path) -> bool:
    if not (path.is_file() and record.is_file()):
        return False
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return digest == record.read_text(encoding="utf-8").strip()


@cache
def _compiler() -> tuple[str, str]:
    wanted = os.environ.get("CXX")
    for name in [wanted] if wanted else ["c++", "g++", "clang++"]:
        path = shutil.which(name)
        if path is not None:
            run = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
            return path, run.stdout.splitlines()[0] if run.stdout else ""
    raise Unsupported("there is no C++ compiler")


def _libraries(compiler: str) -> list[str]:
    glibc = platform.libc_ver()[0] == "glibc" and platform.machine() == "x86_64"
    return ["-lmvec", "-lm"] if glibc and "clang" not in compiler else ["-lm"]


@cache
def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        lines = information.read_text(encoding="utf-8").splitlines()
        return "\n".join(dict.fromkeys(x for x in lines if x.startswith(("model name", "flags"))))
    return f"{platform.machine()} {platform.processor()}"
