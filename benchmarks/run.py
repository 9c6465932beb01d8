"""Run a family's benchmarks: ``python -m benchmarks.run tensor --data-dir DIR --json FILE``.

Prints one line a figure (id, what, figure, target, baseline figure, ratio, pass or miss) and ends
with exit code 1 if any target is missed. CPU time of one thread, float64.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
FAMILIES = sorted(path.parent.name for path in Path(__file__).parent.glob("*/rows.py"))


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    for name in _THREADS:  # before numpy and torch are loaded
        os.environ.setdefault(name, "1")
    import torch

    from benchmarks.frame import Context, load_targets, machine, rows_of, run_rows

    torch.set_num_threads(1)
    importlib.import_module(f"benchmarks.{options.family}.rows")
    try:
        rows = rows_of(options.family, options.only)
    except KeyError as error:
        print(error.args[0], file=sys.stderr)
        return 2
    print(machine(), flush=True)
    context = Context(data_dir=options.data_dir, quick=options.quick)
    report = run_rows(rows, context, load_targets(options.family), json_path=options.json)
    judged = [line for line in report.lines if line["pass"] is not None]
    print(
        f"{len(judged) - len(report.missed)} of {len(judged)} targets met, "
        f"{len(report.lines) - len(judged)} lines without a verdict"
    )
    return 1 if report.missed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("--data-dir", type=Path, help="folder with beijing_air.npz, us_temp.npz")
    parser.add_argument("--json", type=Path, help="write the lines to this file")
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=[], help="rows, e.g. T7,T9"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing judged")
    return parser


if __name__ == "__main__":
    sys.exit(main())
