"""``probkit pde`` as a user calls it."""

import subprocess
import sys

import pytest

from probkit.errors import DataError
from probkit.pde import GPSolver
from probkit.pde.study import load_problem, redraw

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
    again = {path.name for path in redraw(out).values()}
    assert again == {path.name for path in (out / "figures").iterdir()} >= {"solution.png"}
    again = run("solve", "poisson_mix", "--out", str(out))
    assert again.returncode == 2
    assert "not empty" in again.stderr


INVERSE = """
import pyro.distributions as dist
import torch
from probkit.pde import PDE, Box, Problem, Term, Unknown
torch.manual_seed(0)
x = torch.linspace(0, 1, 20).double()
y = torch.sin(9 * x) + 0.01 * torch.randn(20).double()
theta = Unknown("theta", dist.Uniform(torch.tensor(20.0).double(), 99.0))
problem = Problem(
    PDE([Term(1.0, (2,)), Term(theta, (0,))]), Box([(0.0, 1.0)], 40), (),
    lambda x: -20 * torch.sin(9 * x), noise=0.1, data=(x, y, 0.01),
)
"""


def test_unknown_coefficients_of_a_file(tmp_path):
    (tmp_path / "inverse.py").write_text(INVERSE)
    out = tmp_path / "out"
    done = run("solve", str(tmp_path / "inverse.py"), "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert abs(float(done.stdout.split("theta = ")[1].split()[0]) - 61) < 3
    assert (out / "figures" / "solution.png") in redraw(out).values()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1\nproblem = (", r"SyntaxError: .*PROBLEM, line 2"),
        ("x = 1\n\nraise KeyError('a')", r"KeyError: 'a' \(PROBLEM, line 3"),
        (OWN.replace("-81 * exact(x)", "exact(x[:, 0])"), r"IndexError.*source.*shape \(60,\)"),
    ],
)
def test_faults_of_the_users_file_are_named_with_their_place(text, told, tmp_path):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(DataError, match=told):
        GPSolver().fit(load_problem(f"{tmp_path / 'mine.py'}:mine")[0])


def test_a_file_named_from_its_folder_has_lines_too(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("x = 1\n\nimport no_such_module")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="ModuleNotFoundError.*PROBLEM, line 3"):
        load_problem("mine.py")


def test_unknown_problems_name_the_cases(tmp_path):
    done = run("solve", "poisson_nothing", "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "poisson_sin100" in done.stderr
    assert "allen_cahn2d_mix" in run("cases").stdout
