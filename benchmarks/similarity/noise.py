"""D13: exact samplers against OpenDP."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.stats import chi2

from benchmarks.frame import Context, Line, Unavailable, cpu_time, row
from probkit.errors import DependencyError
from probkit.privacy import discrete_gaussian, discrete_laplace
from probkit.privacy.opendp_noise import opendp_noise


@row("D13", "exact samplers")
def samplers(context: Context) -> Iterator[Line]:
    size = context.size(10**6, 10**4)
    ours = cpu_time(lambda: discrete_gaussian(2**20, size), 2)
    yield Line("seconds", "1e6 discrete Gaussian draws, CPU s", ours)
    yield Line(
        "laplace",
        "1e6 discrete Laplace draws, CPU s",
        cpu_time(lambda: discrete_laplace(2**20, size)),
    )
    try:
        theirs = cpu_time(lambda: opendp_noise("gaussian", np.full(size, 2**20)))
    except DependencyError as error:
        raise Unavailable(str(error)) from error
    yield Line("opendp", "OpenDP over ours, discrete Gaussian", theirs / ours)
    z = discrete_gaussian(3, size)
    k = np.arange(-40, 41)
    p = np.exp(-(k**2) / 18.0)
    expected = p / p.sum() * size
    counts = np.bincount(z + 40, minlength=81)
    usual = expected > 10
    statistic = float(((counts - expected)[usual] ** 2 / expected[usual]).sum())
    yield Line("chi2", "chi-square p at sigma 3", float(chi2.sf(statistic, usual.sum() - 1)))
