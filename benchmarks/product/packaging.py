"""X5-X6: what importing costs, and the wheel used without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.frame import Context, Line, cpu_seconds, row

_ROOT = Path(__file__).parents[2]
_MAIN = "from probkit.cli.main import main; main()"
# read or compiled when probkit runs
_DATA = (
    "probkit/fractional/filter.cpp",
    "probkit/statespace/fractional_law.safetensors",
    "probkit/infer/native/runtime.cpp",
    "probkit/infer/native/hmc.cpp",
)


@row("X5", "import time")
def import_time(context: Context) -> Iterator[Line]:
    rounds = context.size(7, 1)
    seconds = {
        code: sorted(_cpu([sys.executable, "-c", code]) for _ in range(rounds))[rounds // 2]
        for code in ("import torch", "import torch, probkit")
    }
    plain, both = seconds.values()
    yield Line("added", "import probkit beyond import torch (CPU s, medians)", both - plain)
    yield Line("torch", "import torch (CPU s)", plain)
    help_seconds = sorted(_cpu([sys.executable, "-c", _MAIN, "--help"]) for _ in range(rounds))
    yield Line("help", "probkit --help, whole process (CPU s)", help_seconds[rounds // 2])


@row("X6", "the wheel, without the checkout")
def wheel(context: Context) -> Iterator[Line]:
    """Dependencies are those of this environment; the checkout is not on the path."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", name, str(_ROOT)])
        (built,) = folder.glob("*.whl")
        names = zipfile.ZipFile(built).namelist()
        lacking = [file for file in _DATA if file not in names]
        yield Line("lacking", "data files not in the wheel", len(lacking), reason=str(lacking))
        other = [n for n in names if not n.startswith(("probkit/", "probkit-"))]
        yield Line("other", "files in it besides the package", len(other), reason=str(other[:3]))
        venv.create(folder / "venv", with_pip=False)
        python = folder / "venv" / "bin" / "python"
        packages = next((folder / "venv" / "lib").glob("*/site-packages"))
        with zipfile.ZipFile(built) as archive:
            archive.extractall(packages)
        # a .pth file may name folders, and is read after the wheel's own
        (packages / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        where = _run([str(python), "-c", "import probkit; print(probkit.__file__)"], folder)
        found = Path(where.strip()).is_relative_to(folder)
        yield Line("own", "the wheel's package is the one in use", float(found))
        command = [str(python), "-c", _MAIN]
        _run([*command, "--help"], folder)
        _run([*command, "doctor"], folder)
        yield Line("cli", "probkit --help and doctor work", 1.0)
        _run([str(python), str(_script(folder))], folder)
        yield Line("tutorial", "the first tutorial's code runs", 1.0)


def _script(folder: Path) -> Path:
    """The code cells of the first tutorial."""
    from jupytext import read

    (source,) = (_ROOT / "tutorials").glob("01_*.md")
    cells = [cell.source for cell in read(source).cells if cell.cell_type == "code"]
    kept = [line for cell in cells for line in cell.splitlines() if not line.startswith(("%", "!"))]
    path = folder / "tutorial.py"
    path.write_text("\n".join(kept) + "\n", encoding="utf-8")
    return path


def _cpu(command: list[str]) -> float:
    before = cpu_seconds()
    _run(command, _ROOT)
    return cpu_seconds() - before


def _run(command: list[str], folder: Path = _ROOT) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "SMOKE": "1"}
    run = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if run.returncode:
        raise RuntimeError(f"{command[:3]} ended with {run.returncode}: {run.stderr[-300:]}")
    return run.stdout
