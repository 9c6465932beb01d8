"""Names of classes that a saved result can be rebuilt from, without pickle.

A class registers under a stable name and offers ``from_spec(spec, tensors)``; the manifest of a
saved result holds the name and the JSON-able spec, a safetensors file the tensors.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any, TypeVar

from probkit.errors import CheckpointError, message

__all__ = ["lookup", "register", "registered_name"]

_CLASSES: dict[str, type] = {}
_NAMES: dict[type, str] = {}
_T = TypeVar("_T", bound=type)


def register(name: str) -> Callable[[_T], _T]:
    """Class decorator: make the class loadable under ``name`` ("package.ClassName")."""

    def decorate(cls: _T) -> _T:
        _CLASSES[name] = cls
        _NAMES[cls] = name
        return cls

    return decorate


def registered_name(instance: object) -> str:
    """The name under which an object's class is registered."""
    name = _NAMES.get(type(instance))
    if name is None:
        raise CheckpointError(
            message(
                f"{type(instance).__name__} cannot be saved: its class is not registered",
                remedy="decorate it with probkit.infer.registry.register(name)",
            )
        )
    return name


def lookup(name: str) -> Any:
    """The class registered under ``name``; its package below probkit is imported if need be."""
    if name not in _CLASSES and name.split(".")[0] == "probkit":
        package = ".".join(name.split(".")[:2])
        # nothing but a package below probkit: a file's text must not choose what is imported
        with contextlib.suppress(ImportError, ValueError):
            if importlib.util.find_spec(package) is not None:
                importlib.import_module(package)
    if name not in _CLASSES:
        raise CheckpointError(
            message(
                "The saved result was made by a class that is not known here",
                where="manifest.json",
                got=name,
                expected=f"one of {sorted(_CLASSES)}",
                remedy="import the module that defines it before loading",
            )
        )
    return _CLASSES[name]
