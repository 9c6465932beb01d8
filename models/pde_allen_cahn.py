"""Study: a semilinear equation, u'' + u^3 - u = f, by Gauss-Newton steps with their own end.

    python models/pde_allen_cahn.py --case allen_cahn2d_mix --out results
    python models/pde_allen_cahn.py --smoke

Every step conditions the Gaussian process on the equation linearised at the last mean.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from probkit.pde import CASES
from probkit.pde.study import Study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = [name for name in CASES if name.startswith("allen_cahn")]
    parser.add_argument("--case", choices=names, default="allen_cahn_sin6cos100")
    parser.add_argument("--out", type=Path, help="directory for results; default a new one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="a smaller grid")
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="pde_allen_cahn_"))

    case = CASES[options.case]
    problem = case.problem(case.num * 3 // 4 if options.smoke else None)
    study = Study(problem, out / "study", options.case, case.solution, seed=options.seed)
    for line in study.run():
        print(line)


if __name__ == "__main__":
    main()
