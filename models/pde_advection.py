"""Study: u_t + b u_x = 0 from inflow and initial data, without the outflow that the paper gives.

    python models/pde_advection.py --speed 200 --num 400 --out results
    python models/pde_advection.py --smoke

Space and time are one box; which frequencies in time the initial data lead to is found from the
equation's characteristic exponents.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from probkit.pde import PDE, Box, Condition, Problem, Term
from probkit.pde.study import Study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--speed", type=float, default=200.0)
    parser.add_argument("--num", type=int, default=200, help="points in space and in time")
    parser.add_argument("--out", type=Path, help="directory for results; default a new one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="a slower wave on a small grid")
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="pde_advection_"))
    speed, num = (20.0, 40) if options.smoke else (options.speed, options.num)

    def exact(x: Tensor) -> Tensor:
        return torch.sin(x[:, 0] - speed * x[:, 1])

    pde = PDE([Term(1.0, (0, 1)), Term(speed, (1, 0))])
    known = [Condition.dirichlet((0, 0), exact), Condition.initial(1, exact)]
    problem = Problem(pde, Box([(0.0, 1.0)] * 2, num), known, 0.0)
    study = Study(problem, out / "study", f"advection, speed {speed:g}", exact, seed=options.seed)
    for line in study.run():
        print(line)


if __name__ == "__main__":
    main()
