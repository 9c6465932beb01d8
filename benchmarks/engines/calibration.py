"""E4: simulation-based calibration of the engines, and a fit that must be flagged.

500 simulations each. Full-rank SVI and NUTS rank the truth of a conjugate regression (20 rows, two
weights); Laplace that of a Poisson regression (500 rows, three coefficients). NUTS takes 50 data
sets in one run, whose posteriors are independent of one another. Mean-field SVI of a Gaussian of
correlation .95 must turn the summary red, by its own diagnostics and by its calibration.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import probkit
from benchmarks.frame import Context, Line, row
from probkit.infer import NUTS, SVI, Calibration, Laplace

__all__ = ["calibration"]

_DOUBLE = torch.float64
_ROWS, _NOISE = 20, 0.5
_POISSON_ROWS = 500
_RANKS = 99
_BATCH = 50
_CORRELATION = 0.95
_SEEDS = 10
_SVI: dict[str, Any] = {
    **{"steps": 1500, "learning_rate": 0.05, "decay": 0.01},
    **{"num_posterior_samples": _RANKS, "num_diagnostic_samples": 0},
}


@row("E4", "calibration")
def calibration(context: Context) -> Iterator[Line]:
    """Engines in turn; the p-value is that of the worst scalar, corrected for their number."""
    count = context.size(500, 20)
    engine = SVI(guide="AutoMultivariateNormal", **_SVI)
    found = probkit.calibrate(_regression, _regression_data, engine, num_simulations=count)
    yield from _lines("svi", "full-rank SVI, conjugate regression", found)
    batch = min(_BATCH, count)
    nuts = NUTS(num_samples=2 * _RANKS, num_warmup=100)
    found = probkit.calibrate(
        _many_regressions, _regression_data, nuts, num_simulations=count, batch=batch
    )
    yield from _lines("nuts", "NUTS, conjugate regression", found)
    laplace = Laplace(num_posterior_samples=_RANKS, num_diagnostic_samples=0)
    found = probkit.calibrate(_poisson, _poisson_data, laplace, num_simulations=count)
    yield from _lines("laplace", "Laplace, Poisson regression", found)
    yield from _mean_field(context)


def _lines(name: str, what: str, found: Calibration) -> Iterator[Line]:
    yield Line(f"{name}_p", f"{what}: p of uniform ranks", found.p_value)
    for level in (0.5, 0.9):
        error = abs(found.coverage(level) - level)
        text = f"{what}: coverage of {level:g} intervals, distance from nominal"
        yield Line(f"{name}_{round(100 * level)}", text, error)
    yield Line(f"{name}_failed", f"{what}: fits that failed", float(found.num_failed))


def _mean_field(context: Context) -> Iterator[Line]:
    seeds = range(context.size(_SEEDS, 2))
    settings = {**_SVI, "num_diagnostic_samples": 2000}
    red = [SVI(**settings).fit(_pair, seed=s).verdict.colour == "red" for s in seeds]
    what = f"mean-field SVI, correlation {_CORRELATION:g}"
    yield Line("mean_field_red", f"{what}: share of summaries that are red", sum(red) / len(red))
    found = probkit.calibrate(
        _seen_pair, _pair_data, SVI(**_SVI), num_simulations=context.size(500, 20)
    )
    yield Line(
        "mean_field_calibration_red",
        f"{what}: calibration is red (1 = yes)",
        float(found.verdict.colour == "red"),
        reason=f"coverage of .9 intervals {found.coverage(0.9):.2f}",
    )


def _regression(x: Tensor, y: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(torch.zeros(2, dtype=_DOUBLE), 1.0).to_event(1))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal((x * w).sum(-1), _NOISE), obs=y)


def _many_regressions(x: Tensor, y: Tensor) -> None:
    """The same for data sets along the first dimension."""
    with pyro.plate("simulations", len(x)):
        prior = dist.Normal(torch.zeros((), dtype=_DOUBLE), 1.0).expand([2]).to_event(1)
        w = pyro.sample("w", prior)
        mean = (x * w[..., None, :]).sum(-1)
        pyro.sample("y", dist.Normal(mean, _NOISE).to_event(1), obs=y)


def _regression_data(generator: torch.Generator) -> tuple[dict[str, Tensor], Any]:
    x, w = _normal(generator, _ROWS, 2), _normal(generator, 2)
    return {"w": w}, (x, x @ w + _NOISE * _normal(generator, _ROWS))


def _poisson(x: Tensor, y: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(torch.zeros(3, dtype=_DOUBLE), 1.0).to_event(1))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Poisson((x * w).sum(-1).exp()), obs=y)


def _poisson_data(generator: torch.Generator) -> tuple[dict[str, Tensor], Any]:
    ones = torch.ones(_POISSON_ROWS, 1, dtype=_DOUBLE)
    x = torch.cat([ones, 0.5 * _normal(generator, _POISSON_ROWS, 2)], 1)
    w = _normal(generator, 3)
    return {"w": w}, (x, torch.poisson((x @ w).exp(), generator=generator))


def _pair() -> None:
    """Two unknowns of unit variance and known correlation: no data, so the posterior is known."""
    pyro.sample("z", dist.MultivariateNormal(torch.zeros(2, dtype=_DOUBLE), _covariance()))


def _seen_pair(total: Tensor) -> None:
    """Independent unknowns whose sum is seen with noise: a posterior of strong correlation."""
    z = pyro.sample("z", dist.Normal(torch.zeros(2, dtype=_DOUBLE), 1.0).to_event(1))
    pyro.sample("total", dist.Normal(z.sum(-1), _sum_noise()), obs=total)


def _pair_data(generator: torch.Generator) -> tuple[dict[str, Tensor], Any]:
    z = _normal(generator, 2)
    return {"z": z}, z.sum() + _sum_noise() * _normal(generator, 1)[0]


def _covariance() -> Tensor:
    eye = torch.eye(2, dtype=_DOUBLE)
    return (1 - _CORRELATION) * eye + _CORRELATION


def _sum_noise() -> float:
    """Posterior correlation is -1 / (1 + variance of the noise)."""
    return float((1 / _CORRELATION - 1) ** 0.5)


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=_DOUBLE)
