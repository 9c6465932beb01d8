"""The project's own files agree with one another."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import probkit

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
)


def requirements(extra: str) -> list[Requirement]:
    """Requirements of an extra, its references to other extras resolved."""
    found = []
    for requirement in map(Requirement, PROJECT["optional-dependencies"][extra]):
        if requirement.name == "probkit":
            found += [r for inner in requirement.extras for r in requirements(inner)]
        else:
            found.append(requirement)
    return found


@pytest.mark.parametrize("extra", ["", "all", "docs", "test", "bench"])
def test_every_dependency_has_a_tested_version_in_range(extra: str) -> None:
    needed = requirements(extra) if extra else list(map(Requirement, PROJECT["dependencies"]))
    assert needed
    for requirement in needed:
        version = PINS[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), (requirement, version)


def test_constraints_are_plain_public_versions() -> None:
    for name, version in PINS.items():
        assert name == canonicalize_name(name)
        assert re.fullmatch(r"[0-9][0-9a-z.]*", version), f"{name}=={version}"


@pytest.mark.parametrize(
    "command",
    [
        'pip install -c constraints.txt -e ".[all]" && probkit tensor fit sst --out runs/sst',
        'pip install -c constraints.txt -e ".[test]" && pytest',
    ],
)
def test_readme_states_the_two_commands(command: str) -> None:
    assert command in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()


def test_version_is_the_same_everywhere() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert probkit.__version__ == PROJECT["version"]
    assert f"version: {probkit.__version__}\n" in citation
