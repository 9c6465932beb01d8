"""What holds for every command: options, help, exit codes, JSON, start-up, completion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from probkit.cli.application import build
from probkit.cli.main import main
from probkit.cli.running import Exit, Lines, command
from probkit.dataset_names import DATASETS
from probkit.errors import FitWarning, NumericalError
from probkit.infer import loop

FLAGS = ("--json", "--quiet", "--debug", "--help")
FITS = ("tensor fit", "sparse recover", "sparse irs", "pde solve", "fractional hurst")
OF_FITS = ("--out", "--seed", "--device", "--smoke")
# an option is left out where it would have no effect
WITHOUT = {
    ("sparse recover", "--seed"),  # draws no random numbers
    ("pde solve", "--device"),  # computes on the CPU, as does the next
    ("fractional hurst", "--device"),
}
RESUMABLE = ("tensor fit", "sparse recover")  # the engines that write checkpoints


def leaves(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command by its words."""
    group = build() if group is None else group
    for name, found in group.commands.items():
        if hasattr(found, "commands"):
            yield from leaves(found, (*path, name))
        else:
            yield " ".join((*path, name)), found


COMMANDS = dict(leaves())


def options(found: Any) -> dict[str, Any]:
    return {o: p for p in found.params for o in p.opts if o.startswith("--")}


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    assert isinstance(stop.value.code, int)
    return stop.value.code


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_shared_flags(name: str) -> None:
    known = options(COMMANDS[name])
    for flag in FLAGS[:-1]:
        assert known[flag].is_flag and known[flag].default is False
    assert COMMANDS[name].help, "help is missing"


def test_an_option_means_the_same_everywhere() -> None:
    seen: dict[str, set[tuple[Any, ...]]] = {}
    for found in COMMANDS.values():
        for name, option in options(found).items():
            told = (option.help, str(option.default), option.is_flag)
            seen.setdefault(name, set()).add(told)
    for name in (*FLAGS[:-1], "--seed", "--device", "--smoke", "--resume"):
        assert len(seen[name]) == 1, (name, seen[name])
    # a directory of a run, a file of answers, the new file of a release
    assert len(seen["--out"]) == 3


@pytest.mark.parametrize("name", FITS)
def test_fits_have_the_options_of_fits(name: str) -> None:
    known = options(COMMANDS[name])
    for option in OF_FITS:
        assert (option in known) == ((name, option) not in WITHOUT), option
    assert ("--resume" in known) == (name in RESUMABLE)


def test_only_fits_have_a_smoke_size() -> None:
    assert {name for name, found in COMMANDS.items() if "--smoke" in options(found)} == set(FITS)


def test_help_fits_a_screen(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert call("--help") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert not any(line.endswith("...") for line in lines[1:]), "a description is cut off"
    for name in COMMANDS:
        assert call(*name.split(), "--help") == 0
        assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


BAD: dict[str, tuple[list[str], str]] = {
    "list": (["extra"], "extra"),
    "report": (["NOWHERE"], "no readable report"),
    "doctor": (["--colour"], "--colour"),
    "tensor fit": (["elnino", "--out", "NEW", "--device", "moon"], "--device: got 'moon'"),
    "tensor predict": (["NOWHERE", "points.csv", "--quantiles", "a"], "--quantiles"),
    "sparse recover": (["NOWHERE", "--out", "NEW"], "no such file"),
    "sparse irs": (["--out", "NEW", "--snr", "loud"], "--snr"),
    "pde solve": (["poisson_nothing", "--out", "NEW"], "no such problem"),
    "pde cases": (["extra"], "extra"),
    "fractional hurst": (["nile", "--kind", "levels", "--out", "NEW", "--horizon", "0"], "horizon"),
    "similarity release": (
        ["NOWHERE", "--epsilon", "1", "--bounds", "wide", "--out", "NEW"],
        "--bounds",
    ),
    "similarity query": (["NOWHERE", "NOWHERE"], "NOWHERE"),
    "similarity inspect": (["NOWHERE"], "NOWHERE"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_bad_input_ends_with_code_2_and_no_traceback(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, word = BAD[name]
    assert call(*name.split(), *arguments) == 2
    told = capsys.readouterr()
    assert "Traceback" not in told.err and word in told.err
    assert call(*name.split(), *arguments, "--json") == 2
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["command", "exit_code", "error", "result"]
    assert (found["command"], found["exit_code"], found["result"]) == (name, 2, None)
    assert word in found["error"]["message"]
    assert not any(tmp_path.iterdir()), "bad input left something behind"


@pytest.mark.parametrize("option", ["--seed", "--num-channels"])
def test_numbers_out_of_range_are_refused_by_the_parser(option: str, capsys: Any) -> None:
    assert call("sparse", "irs", "--out", "new", option, "-1") == 2
    assert option in capsys.readouterr().err


def test_quiet_json_leaves_stderr_empty(capsys: Any) -> None:
    assert call("pde", "cases", "--json", "--quiet") == 0
    told = capsys.readouterr()
    assert "poisson_mix" in json.loads(told.out)["result"]["cases"]
    assert told.err == ""
    assert call("pde", "cases", "--json") == 0
    assert "poisson_mix" in capsys.readouterr().err


def test_no_such_device(tmp_path: Path, capsys: Any) -> None:
    assert call("tensor", "fit", "elnino", "--out", tmp_path / "o", "--device", "cuda:99") == 2
    assert "not there" in capsys.readouterr().err


def run(behave: Any, *words: str) -> int:
    """A command of one's own, through the machinery of all commands."""
    app = typer.Typer(rich_markup_mode=None)
    app.callback()(lambda: None)
    command(app, "try")(behave)
    found = typer.main.get_command(app)
    return int(found.main(args=["try", *words], prog_name="probkit", standalone_mode=False))


def _raising(error: BaseException) -> Any:
    def behave() -> Lines:
        yield "started"
        raise error

    return behave


def _ending(name: str, verdict: str) -> Any:
    def behave() -> Lines:
        yield "started"
        return {"status": {"name": name, "verdict": verdict}}

    return behave


@pytest.mark.parametrize(
    ("behave", "code", "words"),
    [
        (_ending("converged", "green"), Exit.DONE, ""),
        (_ending("max_steps", "amber"), Exit.DONE, ""),
        (_ending("non_finite", "red"), Exit.RED, ""),
        (_ending("interrupted", "amber"), Exit.INTERRUPTED, "interrupted"),
        (_raising(KeyboardInterrupt()), Exit.INTERRUPTED, "interrupted"),
        (_raising(NumericalError("broke down")), Exit.RED, "error: broke down"),
        (_raising(PermissionError("no entry")), Exit.BAD_INPUT, "error: no entry"),
        (_raising(ZeroDivisionError("oh")), Exit.FAULT, "fault of probkit"),
    ],
)
def test_exit_codes(behave: Any, code: Exit, words: str, capsys: Any) -> None:
    assert run(behave) == code
    told = capsys.readouterr()
    assert told.out == "started\n" and words in told.err
    assert ("Traceback" in told.err) == (code is Exit.FAULT)
    assert run(behave, "--json") == code
    found = json.loads(capsys.readouterr().out)
    assert found["exit_code"] == code
    assert (found["error"] is None) == (found["result"] is not None)


def test_debug_shows_the_traceback(capsys: Any) -> None:
    assert run(_raising(NumericalError("broke down")), "--debug") == Exit.RED
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.filterwarnings("default::probkit.errors.FitWarning")
def test_a_warning_is_one_line(capsys: Any) -> None:
    def behave() -> Lines:
        import warnings

        warnings.warn("look here", FitWarning, stacklevel=1)
        yield "done"
        return {}

    assert run(behave) == 0
    assert capsys.readouterr().err == "warning: look here\n"


@pytest.fixture
def problem(tmp_path: Path) -> Path:
    from probkit.sparse import simulate_recovery

    p = simulate_recovery(num_atoms=8, num_measurements=(6, 7), is_complex=True, seed=2)
    arrays = {f"A_{k + 1}": a.numpy() for k, a in enumerate(p.dictionaries)}
    np.savez(tmp_path / "problem.npz", y=p.y.numpy(), **arrays)
    return tmp_path / "problem.npz"


def test_an_interrupted_fit_says_how_to_go_on_and_does(
    problem: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    fit = ["sparse", "recover", str(problem), "--method", "rank1", "--quiet", "--out"]
    assert call(*fit, tmp_path / "whole") == 0
    words = [*fit, str(tmp_path / "parts")]
    record, count = loop._record, iter(range(99))

    def interrupt(*arguments: Any) -> None:
        if next(count) == 3:
            raise KeyboardInterrupt
        record(*arguments)

    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_record", interrupt)
        patch.setattr(sys, "argv", ["probkit", *words])
        assert call(*words) == Exit.INTERRUPTED
    assert f"{' '.join(words)} --resume" in capsys.readouterr().err
    status = json.loads((tmp_path / "parts" / "report.json").read_text())["status"]
    assert status["name"] == "interrupted"
    assert call(*words, "--resume") == 0
    one, other = (np.load(tmp_path / name / "recovery.npz")["mean"] for name in ("whole", "parts"))
    np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)
    # the figures of the saved result are drawn again
    figure = tmp_path / "parts" / "figures" / "evidence.png"
    figure.unlink()
    capsys.readouterr()
    assert call("report", tmp_path / "parts") == 0
    assert figure.stat().st_size > 1000
    assert "figures/evidence.png" in capsys.readouterr().out


def test_no_run_goes_on_in_a_folder_without_one(problem: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("of mine")
    words = ["sparse", "recover", str(problem), "--resume", "--out", str(tmp_path / "mine")]
    assert call(*words) == Exit.BAD_INPUT
    assert "nothing to resume from (--out: got" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def fresh(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


MODULES = """
import sys
from probkit.cli.main import main
for words in (["--help"], ["list"], ["tensor", "fit", "--help"], ["pde", "cases"]):
    try:
        main(words)
    except SystemExit as stop:
        assert not stop.code
print("loaded:", *(m for m in ("torch", "pyro", "numpy", "scipy", "rich") if m in sys.modules))
"""


def test_nothing_heavy_is_imported_for_help_and_lists() -> None:
    assert fresh(MODULES).splitlines()[-1] == "loaded:"


CALL = "from probkit.cli.main import main; main()"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_generated(shell: str) -> None:
    script = fresh(CALL, _PROBKIT_COMPLETE=f"source_{shell}")
    assert "probkit" in script and f"complete_{shell}" in script


def test_names_are_completed_without_torch() -> None:
    ends = "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); "
    words = {"COMP_WORDS": "probkit tensor fit e", "COMP_CWORD": "3"}
    found = fresh(ends + CALL, _PROBKIT_COMPLETE="complete_bash", **words)
    assert found.split() == ["elnino", "False"]


def test_names_of_the_command_line_are_those_of_the_library() -> None:
    from probkit import datasets
    from probkit.cli.pde import _CASES
    from probkit.pde import CASES

    assert {name: points for name, (points, _) in _CASES.items()} == {
        name: case.num for name, case in CASES.items()
    }
    assert set(datasets._LOADERS) == set(DATASETS)
