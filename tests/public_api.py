"""The public interface as text: ``python -m tests.public_api`` writes tests/public_api.txt anew.

One line a name of an ``__all__`` of a package, with its signature; a class is followed by its
public methods and attributes. Annotations are left out: mypy checks them.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import probkit

__all__ = ["SNAPSHOT", "describe", "packages", "public_names"]

SNAPSHOT = Path(__file__).with_name("public_api.txt")
_FLAT = ("errors", "io", "datasets", "plot", "baselines", "report", "random", "special")


def packages() -> list[ModuleType]:
    """``probkit`` and every package and top-level module below it that names its exports."""
    names = [f"probkit.{m.name}" for m in pkgutil.iter_modules(probkit.__path__) if m.ispkg]
    names += [f"probkit.{name}" for name in _FLAT]
    found = [probkit, *map(importlib.import_module, sorted(names))]
    return [module for module in found if getattr(module, "__all__", None)]


def public_names() -> Iterator[tuple[str, Any]]:
    """Dotted name and object of everything that is exported."""
    for module in packages():
        for name in sorted(module.__all__):
            yield f"{module.__name__}.{name}", getattr(module, name)


def describe() -> str:
    """The whole interface, one name a line."""
    lines = []
    for name, found in public_names():
        lines.append(name + _signature(found))
        if inspect.isclass(found):
            lines += [f"    {line}" for line in _members(found)]
    return "\n".join(lines) + "\n"


def _members(cls: type) -> Iterator[str]:
    """Public methods and properties that are defined below probkit."""
    if issubclass(cls, enum.Enum):
        yield from (member.name for member in cls)
        return
    for name in sorted(set(dir(cls))):
        owner = next((c for c in cls.__mro__ if name in vars(c)), None)
        if name.startswith("_") or owner is None or not owner.__module__.startswith("probkit"):
            continue
        found = inspect.getattr_static(cls, name)
        function = getattr(found, "__func__", found)
        yield name + (_signature(function) if inspect.isfunction(function) else "")


def _signature(found: Any) -> str:
    if not callable(found):
        return ""
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):  # a callable of C code
        return "(...)"
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    text = str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))
    return re.sub(r" at 0x[0-9a-f]+", "", text)


if __name__ == "__main__":
    SNAPSHOT.write_text(describe(), encoding="utf-8")
