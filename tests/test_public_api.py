"""The public interface changes on purpose only, and all of it is documented."""

from __future__ import annotations

import ast
import difflib
import inspect
import textwrap
from typing import Any

import pytest

from tests.public_api import SNAPSHOT, describe, public_names

OBJECTS = {
    f"{found.__module__}.{found.__qualname__}": found
    for _, found in public_names()
    if inspect.isclass(found) or inspect.isfunction(found)
}
# What users receive, or subclass, rather than make: its maker's docstring has the example.
RECEIVED = frozenset(
    [
        "Answer",
        "AuditResult",
        "BandwidthChoice",
        "Blocks",
        "Calibration",
        "Case",
        "CoefficientDraws",
        "ControlPaths",
        "FitResult",
        "GridPosterior",
        "GuidePaths",
        "HarmonicFeatures",
        "HarmonicPosterior",
        "IRSChannel",
        "InversePosterior",
        "InverseSolution",
        "Linearization",
        "MarkovKernel",
        "Noise",
        "Outcome",
        "PDESolution",
        "Ranks",
        "Recommendation",
        "Recovery",
        "RecoveryProblem",
        "Release",
        "SDEPath",
        "Series",
        "SimulatedTensor",
        "Sketch",
        "SparsePosterior",
        "StepInfo",
        "Table",
        "TuckerPosterior",
    ]
)
# Figures: the tutorials draw each of them.
DRAWN = "plot_"


def test_the_interface_is_that_of_the_snapshot() -> None:
    before = SNAPSHOT.read_text(encoding="utf-8").splitlines()
    changed = difflib.unified_diff(before, describe().splitlines(), "snapshot", "now", n=1)
    text = "\n".join(changed)
    assert not text, f"{text}\n\nif this is meant: python -m tests.public_api, and the changelog"


@pytest.mark.parametrize("name", OBJECTS)
def test_public_names_are_documented(name: str) -> None:
    """The reference (``docs/reference``, recursive from ``probkit``) is made of docstrings."""
    found = OBJECTS[name]
    text = found.__doc__ or ""
    assert text.strip(), f"{name} has no docstring"
    assert not _raised(found) or "Raises:" in text, f"{name} raises {_raised(found)}: say when"
    if _needs_example(found):
        assert ">>> " in text, f"{name} has no example"


@pytest.mark.parametrize("name", [n for n, found in OBJECTS.items() if inspect.isclass(found)])
def test_public_methods_say_what_they_raise(name: str) -> None:
    for method, function in vars(OBJECTS[name]).items():
        if inspect.isfunction(function) and not method.startswith("_"):
            raised = _raised(function) - {"NotImplementedError"}
            text = inspect.getdoc(getattr(OBJECTS[name], method)) or ""
            assert not raised or "Raises:" in text, f"{name}.{method} raises {raised}: say when"


def test_every_public_module_is_in_the_reference() -> None:
    """Sphinx finds modules by itself; a name that is exported must come from one of them."""
    index = (SNAPSHOT.parents[1] / "docs" / "reference" / "index.md").read_text(encoding="utf-8")
    assert ":recursive:" in index
    assert "   probkit\n" in index
    hidden = [n for n in OBJECTS if any(part.startswith("_") for part in n.split(".")[:-1])]
    assert not hidden, "exported from a module that the reference leaves out"


def _needs_example(found: Any) -> bool:
    name = found.__name__
    exempt = name in RECEIVED or name.startswith(DRAWN)
    if inspect.isclass(found):
        exempt = exempt or issubclass(found, BaseException)
        exempt = exempt or getattr(found, "_is_protocol", False)
    return not exempt


def _raised(found: Any) -> set[str]:
    """Names of the exceptions that a function raises by a statement of its own."""
    if inspect.isclass(found):
        return set()
    tree = ast.parse(textwrap.dedent(inspect.getsource(found)))
    nodes = [n.exc for n in ast.walk(tree) if isinstance(n, ast.Raise) and n.exc is not None]
    return {ast.unparse(node).partition("(")[0] for node in nodes}
