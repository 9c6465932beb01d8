"""The layers hold, files stay short, and importing probkit stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "probkit"
FILES = sorted(PACKAGE.rglob("*.py"))
NUMERICAL_CORE = ("linalg", "statespace", "kernels", "privacy", "sde")
# Installed by an extra only, or slow to import: loaded inside the function that needs them.
LAZY = frozenset(
    [
        "arviz",
        "dask",
        "distributed",
        "eofs",
        "jax",
        "matplotlib",
        "netCDF4",
        "opendp",
        "pandas",
        "pyarrow",
        "statsmodels",
        "tensorly",
        "tinygp",
    ]
)
FAMILIES = ("fractional", "pde", "similarity", "sparse", "tensor")
GLOBAL_SETTERS = frozenset(
    [
        "np.random.seed",
        "os.chdir",
        "pyro.clear_param_store",
        "pyro.enable_validation",
        "pyro.set_rng_seed",
        "random.seed",
        "torch.manual_seed",
        "torch.set_default_dtype",
        "torch.set_default_device",
        "torch.set_num_threads",
        "torch.use_deterministic_algorithms",
        "warnings.filterwarnings",
    ]
)
# Where a setting is put back at once, or belongs to a process of its own.
SCOPED = {
    "probkit/infer/seeding.py": ("np.random.seed", "random.seed", "torch.manual_seed"),
    "probkit/infer/sweeps.py": ("torch.set_num_threads",),
    "probkit/testing.py": ("torch.manual_seed",),
}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST) -> set[str]:
    """Top-level packages named by absolute imports anywhere under a node."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def imported_at_load(body: list[ast.stmt]) -> set[str]:
    """Packages imported when the module is loaded (not in functions, nor for type checkers)."""
    found: set[str] = set()
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            found |= imported_at_load(statement.orelse)
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            found |= imports(statement)
        else:
            found |= imported_at_load(list(_nested(statement)))
    return found


def _nested(statement: ast.stmt) -> Iterator[ast.stmt]:
    for child in ast.iter_child_nodes(statement):
        if isinstance(child, ast.stmt):
            yield child
        else:  # handlers, match cases, with-items hold statements of their own
            yield from (node for node in ast.iter_child_nodes(child) if isinstance(node, ast.stmt))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def fresh_python(code: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_layer_contracts_hold(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_file_is_short_documented_and_lazy(path: Path) -> None:
    tree = parse(path)
    num_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert num_lines <= 400, f"{relative(path)} has {num_lines} lines; one idea a file, 400 at most"
    private = any(part.startswith("_") and part != "__init__.py" for part in path.parts)
    assert private or ast.get_docstring(tree), f"{relative(path)} has no module docstring"
    eager = imported_at_load(tree.body) & LAZY
    assert not eager, f"{relative(path)} imports {sorted(eager)} when loaded"


@pytest.mark.parametrize("layer", NUMERICAL_CORE)
def test_numerical_core_names_no_pyro(layer: str) -> None:
    naming = [relative(p) for p in (PACKAGE / layer).rglob("*.py") if "pyro" in imports(parse(p))]
    assert not naming


@pytest.mark.parametrize("family", FAMILIES)
def test_families_import_no_family(family: str) -> None:
    """By name, also inside functions, where the import contracts would see it as well."""
    others = [f"probkit.{other}" for other in FAMILIES if other != family]
    for path in (PACKAGE / family).rglob("*.py"):
        nodes = [n for n in ast.walk(parse(path)) if isinstance(n, ast.Import | ast.ImportFrom)]
        for node in nodes:
            names = [alias.name for alias in node.names]
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else names
            found = [n for n in names if any(n == o or n.startswith(o + ".") for o in others)]
            assert not found, f"{relative(path)}:{node.lineno} imports {found}"


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_file_changes_no_global_setting_and_unpickles_nothing_from_files(path: Path) -> None:
    calls = [n for n in ast.walk(parse(path)) if isinstance(n, ast.Call)]
    for call in calls:
        name = ast.unparse(call.func)
        where = f"{relative(path)}:{call.lineno}"
        allowed = SCOPED.get(relative(path), ())
        assert name not in GLOBAL_SETTERS or name in allowed, (
            f"{where} calls {name}: it changes every user's process"
        )
        assert name not in ("torch.load", "pickle.load", "np.lib.format.read_array"), where
        if name in ("np.load", "numpy.load"):
            keywords = {k.arg: ast.unparse(k.value) for k in call.keywords}
            assert keywords.get("allow_pickle") == "False", f"{where}: say allow_pickle=False"


def test_import_loads_torch_at_most() -> None:
    """So that ``import probkit`` costs nothing beyond what torch costs."""
    code = "import sys, torch\nbefore = set(sys.modules)\nimport probkit\n"
    code += "print(set(sys.modules) - before)"
    assert ast.literal_eval(fresh_python(code)) == {"probkit"}


def test_the_rest_works_without_any_one_family() -> None:
    fresh_python("from tests.without_family import main\nassert main() == 0, 'see above'")


def test_every_module_imports() -> None:
    names = [module_name(p) for p in FILES if p.name != "__main__.py"]
    fresh_python(f"import importlib\nfor name in {names!r}: importlib.import_module(name)")
