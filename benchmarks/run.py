"""Run benchmarks: ``python -m benchmarks.run tensor --data-dir DIR``, or ``all`` for all families.

Prints one line a figure (id, what, figure, target, baseline figure, ratio, pass or miss) and ends
with exit code 1 if any target is missed. CPU time of one thread, float64. ``--json`` keeps the
figures in ``benchmarks/results/FAMILY.json``, row by row; ``--missing`` goes on where a run ended.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
from pathlib import Path

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
FAMILIES = sorted(path.parent.name for path in Path(__file__).parent.glob("*/rows.py"))


def main(arguments: list[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    parser = _parser()
    options = parser.parse_args(given)
    if options.family == "all":
        return _run_all(given)
    for name in _THREADS:  # before numpy and torch are loaded
        os.environ.setdefault(name, "1")
    import torch

    from benchmarks.frame import Context, load_targets, machine, rows_of, run_rows
    from benchmarks.store import RESULTS, stored_rows

    torch.set_num_threads(1)
    path = options.json
    if path is not None and options.quick and path == Path():
        parser.error("--quick figures are not kept: give --json a file of their own")
    if path is not None and (path == Path() or path.suffix != ".json"):
        path = (RESULTS if path == Path() else path) / f"{options.family}.json"
    importlib.import_module(f"benchmarks.{options.family}.rows")
    try:
        rows = rows_of(options.family, options.only)
    except KeyError as error:
        print(error.args[0], file=sys.stderr)
        return 2
    if options.missing:
        done = stored_rows(path or RESULTS / f"{options.family}.json")
        rows = [row for row in rows if row.id not in done]
    print(machine(), flush=True)
    context = Context(data_dir=options.data_dir, quick=options.quick)
    report = run_rows(rows, context, load_targets(options.family), json_path=path)
    judged = [line for line in report.lines if line["pass"] is not None]
    print(
        f"{len(judged) - len(report.missed)} of {len(judged)} targets met, "
        f"{len(report.lines) - len(judged)} lines without a verdict"
    )
    return 1 if report.missed else 0


def _run_all(given: list[str]) -> int:
    """Every family in a process of its own, so that none finds what another left behind."""
    rest = list(given)
    rest.remove("all")
    code = 0
    for family in FAMILIES:
        print(f"\n{family}", flush=True)
        command = [sys.executable, "-m", "benchmarks.run", family, *rest]
        code = max(code, subprocess.run(command, check=False).returncode)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("family", choices=[*FAMILIES, "all"])
    parser.add_argument("--data-dir", type=Path, help="folder with beijing_air.npz, us_temp.npz")
    parser.add_argument(
        "--json",
        type=Path,
        nargs="?",
        const=Path(),
        help="keep the figures, in a FILE.json or a folder; default benchmarks/results",
    )
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=[], help="rows, e.g. T7,T9"
    )
    parser.add_argument("--missing", action="store_true", help="only rows without kept figures")
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing judged")
    return parser


if __name__ == "__main__":
    sys.exit(main())
