"""Convergence of samplers: rank-normalised split r_hat and bulk effective sample size.

Source: Vehtari, Gelman, Simpson, Carpenter & Bürkner, Bayesian Analysis 16 (2021), as implemented
in ``arviz_stats``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from probkit.infer.status import Status

__all__ = ["mixing_diagnostics", "mixing_status"]

_MAX_SCALARS = 1000
_R_HAT_LIMIT = 1.05
_LEAST_DRAWS = 4


def mixing_diagnostics(draws: dict[str, Float[Tensor, "chain draw *event"]]) -> dict[str, Any]:
    """The largest r_hat and the smallest bulk ESS over the scalars of each site.

    Of a site with more than 1000 scalars, 1000 evenly spaced ones are looked at. Scalars that
    never change (a fixed quantity) have no r_hat and are left out; figures are NaN where there is
    nothing to look at, or fewer than four draws. A single chain is judged by its two halves: that
    sees drift, but not another mode.

    Returns:
        ``r_hat``, ``ess_bulk`` and ``mcse`` by site, ``max_r_hat``, ``min_ess_bulk``,
        ``num_draws``. ``mcse`` is the Monte Carlo error of the mean in posterior standard
        deviations, the largest of the site's scalars.
    """
    r_hat = {}
    ess = {}
    mcse = {}
    for name, value in draws.items():
        r_hat[name], ess[name], mcse[name] = _site(_varying_scalars(value))
    return {
        "num_draws": next(iter(draws.values())).shape[1],
        "r_hat": r_hat,
        "ess_bulk": ess,
        "mcse": mcse,
        "max_r_hat": _extreme(list(r_hat.values()), largest=True),
        "min_ess_bulk": _extreme(list(ess.values()), largest=False),
    }


def mixing_status(diagnostics: dict[str, Any]) -> Status:
    """CONVERGED if every r_hat is at most 1.05; NOT_MIXED otherwise or if none is known."""
    return Status.CONVERGED if diagnostics["max_r_hat"] <= _R_HAT_LIMIT else Status.NOT_MIXED


def _varying_scalars(value: Tensor) -> Tensor:
    """Columns (chain, draw, scalar) of a site that are not constant."""
    real = torch.view_as_real(value) if value.is_complex() else value
    flat = real.detach().cpu().to(torch.float64)[..., None].flatten(2)
    if flat.shape[2] > _MAX_SCALARS:
        flat = flat[:, :, torch.linspace(0, flat.shape[2] - 1, _MAX_SCALARS).long()]
    if flat.shape[1] == 0:
        return flat
    return flat[:, :, (flat != flat[:1, :1]).any(0).any(0)]


def _site(scalars: Tensor) -> tuple[float, float, float]:
    from arviz_stats.base import array_stats

    if scalars.shape[1] < _LEAST_DRAWS or scalars.shape[2] == 0:
        return float("nan"), float("nan"), float("nan")
    values = scalars.numpy()
    compared = (
        np.concatenate(np.split(values[:, values.shape[1] % 2 :], 2, 1))
        if _splits(values)
        else values
    )
    r_hat = array_stats.rhat(compared, chain_axis=0, draw_axis=1)
    ess = array_stats.ess(values, chain_axis=0, draw_axis=1, method="bulk")
    mean_ess = array_stats.ess(values, chain_axis=0, draw_axis=1, method="mean")
    return float(np.max(r_hat)), float(np.min(ess)), float(np.min(mean_ess)) ** -0.5


def _splits(values: NDArray[np.float64]) -> bool:
    return len(values) == 1 and values.shape[1] >= 2 * _LEAST_DRAWS


def _extreme(values: list[float], *, largest: bool) -> float:
    """Largest or smallest of the known values; NaN if none is known."""
    known = [value for value in values if not np.isnan(value)]
    if not known:
        return float("nan")
    return max(known) if largest else min(known)
