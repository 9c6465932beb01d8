"""Fit the tables of law weights that ``probkit.statespace.fractional_tables`` reads.

    python scripts/fractional_tables.py probkit/statespace/fractional_law.safetensors

For every horizon of 2^7 ... 2^14 steps: shared rates and the weights at 20 Chebyshev nodes of the
Hurst index in [.03, .97] by ``fit_law``, reflected to minimum phase (mpmath, 60 digits), written as
Chebyshev coefficients. Minutes of CPU time; the same numbers at every run.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import mpmath
import torch
from safetensors.torch import save_file
from torch import Tensor

from probkit.statespace.fractional_law import (
    fgn_density,
    fit_law,
    frequencies,
    increment_density,
    kl_rate,
)

EXPONENTS = range(7, 15)
NUM_RATES, NUM_NODES = 8, 20
CENTRE, RADIUS = 0.5, 0.47


def minimum_phase(rates: Tensor, weights: Tensor) -> list[float]:
    """The weights of the same law whose transfer function has no zero in the right half-plane."""
    g = [mpmath.mpf(value) for value in rates.tolist()]
    size = len(g)
    numerator = [mpmath.mpf(0)] * size
    for i, weight in enumerate(weights.tolist()):
        product = [mpmath.mpf(1)]
        for j in range(size):
            if j != i:
                shifted = [mpmath.mpf(0), *(g[j] * c for c in product)]
                product = [a + b for a, b in zip([*product, mpmath.mpf(0)], shifted, strict=True)]
        numerator = [n + mpmath.mpf(weight) * p for n, p in zip(numerator, product, strict=True)]
    roots = mpmath.polyroots(numerator, maxsteps=1000, extraprec=600)
    roots = [-z if mpmath.re(z) > 0 else z for z in roots]
    found = []
    for i in range(size):
        value = abs(numerator[0])
        for z in roots:
            value *= -g[i] - z
        for j in range(size):
            if j != i:
                value /= g[j] - g[i]
        found.append(float(mpmath.re(value)))
    return found


def main(path: Path) -> None:
    mpmath.mp.dps = 60
    torch.set_num_threads(1)
    angle = math.pi * (torch.arange(NUM_NODES, dtype=torch.float64) + 0.5) / NUM_NODES
    hurst = CENTRE + RADIUS * torch.cos(angle)
    basis = torch.cos(torch.arange(NUM_NODES, dtype=torch.float64) * angle[:, None])
    table = {}
    for exponent in EXPONENTS:
        num_steps = 2**exponent
        rates, weights, _ = fit_law(hurst, NUM_RATES, num_steps)
        order = rates.argsort()
        rates = rates[order]
        rows = [minimum_phase(rates, row) for row in weights[:, order]]
        canonical = torch.tensor(rows, dtype=torch.float64)
        table[f"rates.{num_steps}"] = rates.contiguous()
        table[f"coefficients.{num_steps}"] = torch.linalg.solve(basis, canonical).contiguous()
        frequency, weight = frequencies(num_steps)
        density = increment_density(rates, canonical, frequency)
        reached = kl_rate(fgn_density(hurst, frequency), density, weight)
        print(f"N = {num_steps}: largest divergence {float(reached.max()):.1e} nats a point")
    save_file(table, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
