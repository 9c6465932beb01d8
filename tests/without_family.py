"""Imports probkit without one family, for each of the five: ``python -m tests.without_family``.

Torch, Pyro and the other libraries are loaded once; each family is then left out of a copy of the
package in a child process of its own, where every remaining module is imported and the command line
runs ``list`` and ``doctor``.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

FAMILIES = ("fractional", "pde", "similarity", "sparse", "tensor")
_PACKAGE = Path(__file__).parents[1] / "probkit"
_LIBRARIES = ("torch", "pyro", "gpytorch", "xarray", "scipy.linalg", "typer", "arviz_base")


def main() -> int:
    """Exit code: the number of families that the rest cannot do without."""
    for name in _LIBRARIES:
        importlib.import_module(name)
    broken = 0
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "probkit"
            shutil.copytree(_PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
            shutil.rmtree(copy / family)
            (copy / "cli" / f"{family}.py").unlink()
            child = os.fork()
            if child == 0:
                os._exit(_child(family, copy))
            _, status = os.waitpid(child, 0)
            broken += os.waitstatus_to_exitcode(status) != 0
    return broken


def _child(family: str, copy: Path) -> int:
    sys.path.insert(0, str(copy.parent))
    try:
        _check(family, copy)
    except BaseException:
        print(f"without {family}:", file=sys.stderr)
        traceback.print_exc()
        sys.stderr.flush()
        return 1
    return 0


def _check(family: str, copy: Path) -> None:
    for path in sorted(copy.rglob("*.py")):
        parts = path.relative_to(copy.parent).with_suffix("").parts
        if parts[-1] != "__main__":
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            module = importlib.import_module(name)
            assert Path(str(module.__file__)).is_relative_to(copy), module.__file__
    for arguments in (["list"], ["doctor"], ["--help"]):
        code, text = _command(arguments)
        assert code in (0, None), f"probkit {arguments[0]} ended with {code}: {text}"
        if arguments == ["list"]:
            families = text.partition("data sets:")[0]
            assert f"  {family} " not in families, text
            assert all(f"  {f} " in families for f in FAMILIES if f != family), text
    _fit(family)


def _command(arguments: list[str]) -> tuple[object, str]:
    """Exit code and output of a command."""
    from probkit.cli.main import main as run

    sys.argv = ["probkit", *arguments]
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        try:
            run()
        except SystemExit as end:
            return end.code, text.getvalue()
    return 0, text.getvalue()


def _fit(family: str) -> None:
    """The engines still fit a model."""
    import pyro
    import pyro.distributions as dist
    import torch

    import probkit

    def model(y: torch.Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(y.new_zeros(()), 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    result = probkit.fit(model, torch.ones(3, dtype=torch.float64), engine=probkit.infer.MAP())
    assert abs(float(result.posterior.point()["mean"]) - 0.75) < 1e-6, result


if __name__ == "__main__":
    sys.exit(main())
