"""R14: Hamiltonian sampling of index, scale and noise against the dense posterior; calibration."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.fractional.volatility import dense_posterior
from benchmarks.frame import Context, Line, row
from probkit.fractional import HurstModel
from probkit.fractional.grid import NOISE_RANGE
from probkit.infer import HMC, NUTS, DrawsPosterior, FitResult, calibrate
from probkit.statespace.fractional_noise import sample_fgn
from probkit.statespace.fractional_tables import HURST_RANGE

F64 = torch.float64
HURST, NOISE = 0.15, 0.1


@row("R14", "NUTS over index, scale and noise; calibration of the sampler")
def sampling(context: Context) -> Iterator[Line]:
    size = context.size(400, 60)
    generator = torch.Generator().manual_seed(50)
    noise = torch.randn(size, generator=generator, dtype=F64)
    y = sample_fgn(HURST, size, 1, seed=0)[0].cumsum(0) + math.sqrt(NOISE) * noise
    mean, sd = dense_posterior(y, HurstModel("levels").fit(y))
    draws = context.size(300, 40)
    engines: dict[str, Any] = {
        "nuts": NUTS(num_samples=3 * draws, num_warmup=2 * draws, num_chains=4, full_mass=True),
        "hmc": HMC(num_samples=draws, num_warmup=draws // 2, num_chains=8, dense_mass=True),
    }
    for name, engine in engines.items():
        found = HurstModel("levels", engine=engine, seed=1).fit(y).result_
        gap = abs(float(found.posterior.mean()["hurst"]) - mean) / sd
        yield Line(name, f"{name.upper()}, N = {size}: gap to the dense posterior (sd)", gap)
        worst = max(found.diagnostics["r_hat"].values())
        yield Line(f"{name}_r_hat", f"{name.upper()}: largest r-hat", worst)
    calibrated = calibrate(
        None, _simulated, _fitted, num_simulations=context.size(100, 2), num_ranks=19, seed=7
    )
    yield Line("failed", "fits of 100 data sets from the prior that failed", calibrated.num_failed)
    for name, values in calibrated.p_values.items():
        yield Line(f"sbc_{name}", f"ranks of {name}: p of chi-square", float(values.min()))


def _simulated(generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
    """Index and noise from the prior; the scale's is flat, for which any scale will do."""
    unit = torch.rand(2, generator=generator, dtype=F64)
    hurst = HURST_RANGE[0] + unit[0] * (HURST_RANGE[1] - HURST_RANGE[0])
    log_noise = NOISE_RANGE[0] + unit[1] * (NOISE_RANGE[1] - NOISE_RANGE[0])
    increments = sample_fgn(float(hurst), 64, 1, seed=generator)[0]
    noise = torch.randn(64, generator=generator, dtype=F64)
    truth = {"hurst": hurst, "scale": torch.ones((), dtype=F64), "noise": (log_noise / 2).exp()}
    return truth, increments.cumsum(0) + truth["noise"] * noise


def _fitted(y: Tensor, seed: int) -> FitResult:
    engine = HMC(num_samples=30, num_warmup=50, num_chains=8, dense_mass=True)
    found = HurstModel("levels", engine=engine, seed=seed).fit(y).result_
    assert isinstance(found.posterior, DrawsPosterior)
    return found
