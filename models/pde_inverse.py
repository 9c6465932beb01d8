"""Study: the unknown coefficients of a PDE from noisy values of its solution.

    python models/pde_inverse.py --case stiffness --engine nuts --out results
    python models/pde_inverse.py --case diffusivity --out results
    python models/pde_inverse.py --smoke

"stiffness": u'' + theta u = f, theta from 25 values of u, their noise unknown too. "diffusivity":
u_t = kappa u_xx from values scattered in space and time. The model, with x the weights of u in
harmonic features, is that of ``probkit.pde.inverse_model``:

    theta, noise, a ~ priors,   x_j ~ N(0, a^2 s_j),   u = sum_j x_j phi_j
    F_theta[u] = f + e,   y = u(at) + noise e'

whose weights are integrated out, so that the engines explore the few unknowns only. Fang et al.,
ICLR 2024, arXiv 2311.04465, take all coefficients as known.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path

import pyro.distributions as dist
import torch
from torch import Tensor

from probkit.infer import NUTS, SVI, Laplace
from probkit.pde import PDE, Box, Condition, InverseSolver, Problem, Term, Unknown
from probkit.pde.inverse_study import InverseStudy

ENGINES = {
    "laplace": Laplace(),
    "svi": SVI(steps=3000, learning_rate=0.05),
    "nuts": NUTS(num_samples=500, num_warmup=300, num_chains=2),
}


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def stiffness(seed: int, num: int) -> tuple[Problem, dict[str, float], object]:
    """u'' + 400 u = f on a line."""
    generator = torch.Generator().manual_seed(seed)

    def exact(x: Tensor) -> Tensor:
        return torch.sin(13 * x) + 0.5 * torch.cos(21 * x + 1)

    box = Box([(0.0, 1.0)], num)
    x = box.points()[:, 0]
    f = 231 * torch.sin(13 * x) - 20.5 * torch.cos(21 * x + 1)
    f = f + 0.1 * torch.randn(num, generator=generator, dtype=torch.float64)
    at = torch.rand(25, generator=generator, dtype=torch.float64)
    y = exact(at) + 0.02 * torch.randn(25, generator=generator, dtype=torch.float64)
    theta = Unknown("theta", dist.Uniform(number(100.0), number(700.0)))
    noise = Unknown("noise", dist.LogNormal(number(-4.0), number(2.0)))
    pde = PDE([Term(1.0, (2,)), Term(theta, (0,))])
    problem = Problem(pde, box, (), f, noise=0.1, data=(at, y, noise))
    return problem, {"theta": 400.0, "noise": 0.02}, exact


def diffusivity(seed: int, num: int) -> tuple[Problem, dict[str, float], object]:
    """u_t - kappa u_xx = 0 on a bar that cools."""
    generator = torch.Generator().manual_seed(seed)

    def exact(x: Tensor) -> Tensor:
        first = torch.exp(-0.1 * math.pi**2 * x[:, 1]) * torch.sin(math.pi * x[:, 0])
        return first + 0.5 * torch.exp(-0.4 * math.pi**2 * x[:, 1]) * torch.sin(
            2 * math.pi * x[:, 0]
        )

    at = torch.rand(60, 2, generator=generator, dtype=torch.float64)
    y = exact(at) + 0.01 * torch.randn(60, generator=generator, dtype=torch.float64)
    minus_kappa = Unknown("kappa", dist.Uniform(number(0.01), number(1.0)), -1.0)
    pde = PDE([Term(1.0, (0, 1)), Term(minus_kappa, (2, 0))])
    known = [Condition.dirichlet((0, side), noise=1e-3) for side in (0, 1)]
    known.append(Condition.initial(1, exact, noise=1e-3))
    box = Box([(0.0, 1.0)] * 2, num)
    problem = Problem(pde, box, known, 0.0, noise=0.02, data=(at, y, 0.01))
    return problem, {"kappa": 0.1}, exact


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    cases = {"stiffness": stiffness, "diffusivity": diffusivity}
    parser.add_argument("--case", choices=cases, default="stiffness")
    parser.add_argument("--engine", choices=ENGINES, default="laplace")
    parser.add_argument("--out", type=Path, help="directory for results; default a new one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="fewer points and scans")
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="pde_inverse_"))

    line = options.case == "stiffness"
    num = (50 if options.smoke else 100) if line else (10 if options.smoke else 20)
    problem, truth, exact = cases[options.case](options.seed, num)
    solver = InverseSolver(
        ENGINES[options.engine],
        num_scans=100 if options.smoke else 400,
        max_features=600 if line else (120 if options.smoke else 200),
    )
    title = f"inverse problem: {options.case}"
    study = InverseStudy(problem, out / "study", title, truth, exact, solver, options.seed)
    for text in study.run():
        print(text)


if __name__ == "__main__":
    main()
