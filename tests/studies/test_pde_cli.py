"""``probkit pde`` as a user calls it."""

import subprocess
import sys

OWN = """
import torch
from probkit.pde import PDE, Box, Condition, Problem, Term
def exact(x): return torch.sin(9 * x)
ends = [Condition.dirichlet((0, side), exact) for side in (0, 1)]
mine = Problem(PDE([Term(1.0, (2,))]), Box([(0.0, 1.0)], 60), ends, lambda x: -81 * exact(x))
"""


def run(*arguments):
    code = "from probkit.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "pde", *arguments], capture_output=True, text=True, check=False
    )


def test_solve_a_file(tmp_path):
    (tmp_path / "mine.py").write_text(OWN)
    out = tmp_path / "out"
    done = run("solve", f"{tmp_path / 'mine.py'}:mine", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "u_xx" in done.stdout
    assert float(done.stdout.split("relative error: ")[1].split()[0]) < 1e-9
    names = {path.name for path in out.iterdir()}
    assert {"manifest.json", "posterior.nc", "report.md", "figures"} <= names
    again = run("solve", "poisson_mix", "--out", str(out))
    assert again.returncode == 2
    assert "not empty" in again.stderr


def test_unknown_problems_name_the_cases(tmp_path):
    done = run("solve", "poisson_nothing", "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "poisson_sin100" in done.stderr
    assert "allen_cahn2d_mix" in run("cases").stdout
