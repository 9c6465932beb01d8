"""Study: a high-frequency Poisson problem, exact and noisy, with error bars.

    python models/pde_poisson.py --case poisson_sin500 --out results
    python models/pde_poisson.py --noise 0.05 --out results
    python models/pde_poisson.py --smoke                 # a small grid, seconds

The model is a Gaussian process u whose spectrum is read off the source; f = u'' + noise and the end
values condition it. Fang et al., ICLR 2024, arXiv 2311.04465.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from probkit.pde import CASES, Problem
from probkit.pde.study import Study


def noisy(problem: Problem, share: float, seed: int) -> Problem:
    """The problem with a source measured with noise, a share of its standard deviation."""
    x = problem.domain.points()
    f = problem.source(x[:, 0] if x.shape[1] == 1 else x)
    sd = share * float(f.std())
    generator = torch.Generator().manual_seed(seed)
    measured = f + sd * torch.randn(f.shape, generator=generator, dtype=f.dtype)
    return replace(problem, source=measured, noise=sd)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = [name for name in CASES if name.startswith("poisson")]
    parser.add_argument("--case", choices=names, default="poisson_sin6cos100")
    parser.add_argument("--noise", type=float, default=0.0, help="share of the source's spread")
    parser.add_argument("--out", type=Path, help="directory for results; default a new one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="a smaller grid")
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="pde_poisson_"))

    case = CASES[options.case]
    problem = case.problem(case.num * 3 // 4 if options.smoke else None)
    if options.noise > 0:
        problem = noisy(problem, options.noise, options.seed)
    study = Study(problem, out / "study", options.case, case.solution, seed=options.seed)
    for line in study.run():
        print(line)


if __name__ == "__main__":
    main()
