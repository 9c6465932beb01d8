"""C3: a PDE prior whose spectrum is learned by evidence updates, and fixed kernels."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch

from benchmarks.frame import Context, Line, row
from probkit.errors import FitWarning
from probkit.kernels import SpectralMixtureKernel
from probkit.pde import CASES, GPSolver

_CASE = "poisson_sin6cos100"


@row("C3", "sin 6x cos 100x: spectrum learned by evidence, and the best fixed kernel")
def spectrum(context: Context) -> Iterator[Line]:
    case = CASES[_CASE]
    problem = case.problem(context.size(400, 250))
    learned = GPSolver().fit(problem)
    errors = []
    for length in (0.005, 0.01, 0.02, 0.04, 0.08):
        kernel = SpectralMixtureKernel(1)
        kernel.frequencies = torch.tensor([1e-6])
        kernel.lengthscales = torch.tensor([length])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FitWarning)
            errors.append(case.error(GPSolver(prior=kernel).fit(problem)))
    what = "error (baseline: best of five squared-exponential kernels, chosen by the truth)"
    yield Line("error", what, case.error(learned), min(errors))
    ((frequency, power),) = learned.spectrum()
    peaks = frequency[power.topk(8).indices]
    sides = [(100 + sign * 6) / (2 * torch.pi) for sign in (-1, 1)]
    gap = max(float((peaks - side).abs().min()) for side in sides)
    yield Line("frequency", "distance of a true frequency to the nearest of 8 peaks, cycles", gap)
