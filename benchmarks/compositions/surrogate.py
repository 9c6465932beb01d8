"""C5: fields of the PDE solver over a parameter, kept at random noisy cells: a Tucker surrogate.

Allen-Cahn fronts, u_t = .01 u_xx + r (u - u^3) on (-1, 1) x (0, 1), are solved for seven rates r
in [.5, 4.5]. Every run keeps 350 cells of a grid of 81 x 51, its own at random, with noise of sd
.05 (the field's own sd is .73, the solver's at most .0065). Six rates half-way between the seven
are solved afresh; their fields, without noise, are the truth. Errors are root mean squares over
cells and rates, averaged over three draws of cells and noise.

The interpolations go in two stages, each run to the grid and then every cell over r, both linear
or cubic, and are those that a complete grid would make exact; "smoothed" is a thin-plate spline
in the first stage, of 17 penalties from 1e-7 to 10 times 5 scales of time. The best of each kind is
chosen by the truth, which favours them. The Gaussian process is GPyTorch's, with a length a
coordinate, on 500 of the entries, at about the CPU time of the surrogate.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator

import gpytorch
import numpy as np
import torch
from scipy.interpolate import RBFInterpolator, griddata, make_interp_spline
from torch import Tensor

from benchmarks.frame import Context, Line, cpu_time, row
from probkit.infer import CVI
from probkit.pde import PDE, Box, Condition, GPSolver, PDESolution, Problem, Term
from probkit.tensor import FunctionalTucker

_NOISE = 0.05
_SEEDS = (11, 12, 13)
_SPLINES = list(
    itertools.product((1.0, 2.0, 4.0, 8.0, 16.0), [10 ** (k / 2) for k in range(-14, 3)])
)
_AXES = [torch.linspace(low, 1.0, n, dtype=torch.float64) for low, n in ((-1.0, 81), (0.0, 51))]
_CELLS = torch.cartesian_prod(*_AXES)


@row("C5", "Allen-Cahn fields over a rate, 350 noisy cells a run: rates never solved for")
def surrogate(context: Context) -> Iterator[Line]:
    num = context.size(13, 5)
    rates = torch.linspace(0.5, 4.5, num, dtype=torch.float64).tolist()
    sizes = (context.size(48, 20), context.size(32, 16))
    fields = torch.stack([solve(r, sizes).on_grid(_AXES).reshape(-1) for r in rates])
    design, held, truth = rates[::2], rates[1::2], fields[1::2]
    found: dict[str, list[float]] = defaultdict(list)
    for seed in _SEEDS[: context.size(3, 1)]:
        cells, values = kept(fields[::2], context.size(350, 60), seed)
        for name, figure in compare(design, cells, values, held, truth, context).items():
            found[name].append(figure)
    mean = {name: statistics.fmean(figures) for name, figures in found.items()}
    what = "RMSE of the surrogate (baseline: "
    yield Line("error", f"{what}best interpolation)", mean["tucker"], mean["interpolated"])
    yield Line("smoothed", f"{what}best smoothed)", mean["tucker"], mean["smoothed"])
    yield Line("process", f"{what}Gaussian process, 500 entries)", mean["tucker"], mean["process"])
    yield Line("coverage", "coverage of the field by 90 % intervals", mean["coverage"])
    nearest = rmse(fields[::2][: len(held)], truth)
    complete = make_interp_spline(design, fields[::2].numpy(), k=3 if len(design) > 3 else 1)(held)
    yield Line("nearest", f"{what}nearest run, complete and exact)", mean["tucker"], nearest)
    exact = rmse(torch.from_numpy(complete), truth)
    yield Line("complete", f"{what}cubic, complete and exact)", mean["tucker"], exact)
    seconds = cpu_time(lambda: solve(held[-1], sizes))
    yield Line("cost", "CPU s, a field and its sd (baseline: a solve)", mean["seconds"], seconds)


def solve(rate: float, sizes: tuple[int, int]) -> PDESolution:
    """Fronts that sharpen and merge the faster the larger the rate."""

    def start(x: Tensor) -> Tensor:
        waves = ((0.6, 1), (0.4, 3), (-0.3, 4))
        return torch.stack([a * torch.sin(k * math.pi * x[:, 0]) for a, k in waves]).sum(0)

    pde = PDE(
        [Term(1.0, (0, 1)), Term(-0.01, (2, 0)), Term(-rate, (0, 0))],
        nonlinear=lambda u: rate * u**3,
    )
    known = [*(Condition.dirichlet((0, side)) for side in (0, 1)), Condition.initial(1, start)]
    return GPSolver().fit(Problem(pde, Box([(-1.0, 1.0), (0.0, 1.0)], sizes), known))


def kept(fields: Tensor, num: int, seed: int) -> tuple[Tensor, Tensor]:
    """Cells (runs, num) that each run keeps, and their noisy values."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.stack([torch.randperm(len(_CELLS), generator=generator)[:num] for _ in fields])
    noise = torch.randn(cells.shape, generator=generator, dtype=torch.float64)
    return cells, fields.gather(1, cells) + _NOISE * noise


def compare(
    design: list[float],
    cells: Tensor,
    values: Tensor,
    held: list[float],
    truth: Tensor,
    context: Context,
) -> dict[str, float]:
    """Errors of the methods, and coverage and cost of the surrogate."""
    rate = torch.tensor(design, dtype=torch.float64)[:, None, None].expand(*cells.shape, 1)
    x, y = torch.cat([_CELLS[cells], rate], -1).flatten(0, 1), values.flatten()
    queries = [torch.cat([_CELLS, torch.full_like(_CELLS[:, :1], r)], 1) for r in held]

    engine = CVI(max_sweeps=context.size(200, 5))
    model = FunctionalTucker(
        rank=(5, 5, 3),
        kernels="matern32",
        likelihood="gaussian",
        num_starts=1,
        calibrate=False,
        engine=engine,
    ).fit(x, y)
    answers = [model.predict(q, num_samples=200) for q in queries]
    mean = torch.stack([a["mean"] for a in answers])
    sd = torch.stack([a["samples"].std(0) for a in answers])
    found = {"tucker": rmse(mean, truth)}
    found["coverage"] = float(((mean - truth).abs() < 1.645 * sd).double().mean())
    found["seconds"] = cpu_time(lambda: model.predict(queries[0], return_sd=True), repeats=2)

    runs = list(zip(_CELLS[cells].numpy(), values.numpy(), strict=True))
    plain = [np.stack([_interpolated(*run, kind) for run in runs]) for kind in ("linear", "cubic")]
    smooth = [np.stack([_smoothed(*run, *kind) for run in runs]) for kind in _SPLINES]
    for name, stages in (("interpolated", plain), ("smoothed", smooth)):
        degrees = (1, min(3, len(design) - 1))
        found[name] = min(
            rmse(torch.from_numpy(make_interp_spline(design, stage, k=k)(held)), truth)
            for stage, k in itertools.product(stages, degrees)
        )
    chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:500]
    steps = context.size(80, 5)
    found["process"] = rmse(process(x[chosen], y[chosen], torch.stack(queries), steps), truth)
    return found


def rmse(found: Tensor, truth: Tensor) -> float:
    """Root of the mean squared error."""
    return float((found - truth).square().mean().sqrt())


def _interpolated(at: np.ndarray, values: np.ndarray, kind: str) -> np.ndarray:
    """One run at all cells, nearest outside the hull."""
    field = griddata(at, values, _CELLS.numpy(), method=kind)
    nearest = griddata(at, values, _CELLS.numpy(), method="nearest")
    return np.where(np.isnan(field), nearest, field)


def _smoothed(at: np.ndarray, values: np.ndarray, stretch: float, penalty: float) -> np.ndarray:
    """One run at all cells; ``stretch`` makes a unit of time count for less."""
    scale = np.array([2.0, stretch])
    spline = RBFInterpolator(at / scale, values, smoothing=penalty)
    field: np.ndarray = spline(_CELLS.numpy() / scale)
    return field


class _Process(gpytorch.models.ExactGP):
    def __init__(self, x: Tensor, y: Tensor, likelihood: gpytorch.likelihoods.Likelihood) -> None:
        super().__init__(x, y, likelihood)
        self.mean = gpytorch.means.ConstantMean()
        self.kernel = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel(ard_num_dims=3))
        self.kernel.base_kernel.lengthscale = 0.3

    def forward(self, x: Tensor) -> gpytorch.distributions.MultivariateNormal:
        return gpytorch.distributions.MultivariateNormal(self.mean(x), self.kernel(x))


def process(x: Tensor, y: Tensor, queries: Tensor, steps: int) -> Tensor:
    """Mean at the queries (R, Q, 3) of a Gaussian process learned by its marginal likelihood."""
    low, span = x.min(0).values, x.max(0).values - x.min(0).values
    likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
    likelihood.noise = 0.01
    model = _Process((x - low) / span, y, likelihood).double()
    objective = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = -objective(model(model.train_inputs[0]), y)
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        return torch.stack([model((q - low) / span).mean for q in queries])
