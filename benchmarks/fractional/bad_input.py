"""R20: the table of users' mistakes; each must end in an error or a warning that names it."""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.frame import Context, Line, row
from probkit.errors import ProbkitError, ProbkitWarning
from probkit.fractional import ControlGuide, FractionalSDE, HurstModel, MarkovApproxFBM
from probkit.fractional.study import load_series
from probkit.infer import SVI, PointEstimate, Status, fit
from probkit.kernels import FractionalBrownianKernel, MarkovFractionalKernel
from probkit.sde import solve_sde
from probkit.statespace.fractional_noise import sample_fgn

F64 = torch.float64
_QUICK: dict[str, Any] = {"grid_size": 15, "num_samples": 100}


@row("R20", "mistakes")
def mistakes(context: Context) -> Iterator[Line]:
    outcomes = {name: check() for name, check in CHECKS.items()}
    for name, good in outcomes.items():
        yield Line("", f"{name}: handled", float(good))
    yield Line("handled", "share of mistakes handled", sum(outcomes.values()) / len(outcomes))


def _raises(action: Callable[[], object], *words: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ProbkitWarning)
            action()
    except ProbkitError as error:
        return all(word in str(error) for word in words)
    return False


def _warns(action: Callable[[], object], *words: str) -> bool:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action()
    return any(all(word in str(w.message) for word in words) for w in caught)


def _series(size: int = 60) -> Tensor:
    return sample_fgn(0.3, size, 1, seed=0)[0].cumsum(0)


def _fit(y: object, times: object = None, kind: str = "levels", noise: bool = False) -> HurstModel:
    return HurstModel(kind, noise=noise, **_QUICK).fit(y, times)


def _index_off_range() -> bool:
    table, unit = ("[0.03, 0.97]",), ("between 0 and 1",)
    bad = (0.0, 1.0, -0.2, 1.3, math.nan)
    law = all(_raises(lambda h=h: MarkovApproxFBM(h), *table) for h in (*bad, 0.01, 0.99))
    l2 = all(_raises(lambda h=h: MarkovApproxFBM(h, weights="l2"), *unit) for h in bad)
    kernels = all(
        _raises(lambda h=h, k=k: k(h), "hurst", "in (")
        for h in bad
        for k in (FractionalBrownianKernel, MarkovFractionalKernel)
    )
    model = _fit(_series())
    fixed = all(_raises(lambda h=h: model.compare(h), *table) for h in (*bad, 0.01))
    return law and l2 and kernels and fixed


def _kind_required() -> bool:
    try:
        HurstModel()  # type: ignore[call-arg]
    except TypeError as error:
        return "kind" in str(error) and _raises(lambda: HurstModel("level"), "increments")
    return False


def _kinds_swapped() -> bool:
    noise = sample_fgn(0.5, 300, 1, seed=1)[0]
    sums = _warns(lambda: _fit(noise.cumsum(0), kind="increments"), "levels, not increments")
    bare = _warns(lambda: _fit(noise), "increments, not levels")
    noisy = _warns(lambda: _fit(noise, noise=True), "increments, not levels")
    return sums and bare and noisy


def _mean_of_increments() -> bool:
    noise = sample_fgn(0.3, 100, 1, seed=2)[0]
    far = _warns(lambda: _fit(noise + 5, kind="increments"), "mean of zero", "subtract")
    return far and not _warns(lambda: _fit(noise + 1, kind="increments"), "mean of zero")


def _times() -> bool:
    y, grid = _series(), torch.arange(60, dtype=F64)
    unsorted, equal = grid.clone(), grid.clone()
    unsorted[7], equal[9] = 3.5, grid[8]
    words = "strictly increasing"
    wrong = _raises(lambda: _fit(y, unsorted), words, "index 7")
    return wrong and _raises(lambda: _fit(y, equal), words, "index 9")


def _mixed_units() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mixed.csv"
        rows = [f"{n},{n % 5}" for n in range(20)]
        rows[4] = "2020-01-05,1"
        file.write_text("\n".join(["time,level", *rows]) + "\n")
        return _raises(lambda: load_series(str(file), time="time"), "mixes numbers and text", "[5]")


def _missing_and_infinite() -> bool:
    y = _series()
    y[[5, 6]] = math.nan
    counted = _fit(y).result_.diagnostics["num_missing"] == 2
    y[11] = math.inf
    return counted and _raises(lambda: _fit(y), "infinite", "index 11")


def _constant() -> bool:
    return _raises(lambda: _fit(torch.ones(40)), "zero variance")


def _short() -> bool:
    return _raises(lambda: _fit(_series()[:7]), "at least eight")


def _rates() -> bool:
    def build(*rates: float, **options: Any) -> Callable[[], object]:
        given = torch.tensor(rates, dtype=F64)
        return lambda: MarkovApproxFBM(0.3, weights="l2", rates=given, num_steps=10, **options)

    words = ("rates", "distinct")
    refused = [build(1.0, 1.0), build(-1.0, 1.0), build(0.0, 1.0), build(1e-8, 1e8)]
    close = build(1.0, 1.0 + 1e-12, 1.0 + 2e-12, 1.0 + 3e-12)
    singular = _raises(close, "condition number", "ridge")
    ridged = build(1.0, 1.0 + 1e-12, 1.0 + 2e-12, 1.0 + 3e-12, ridge=1e-8)
    ridged()
    return singular and all(_raises(action, *words) for action in refused)


def _too_long() -> bool:
    published = MarkovApproxFBM(0.7, weights="l2", horizon=1.0, num_steps=100, dt=0.01)
    table = MarkovApproxFBM(0.7, num_steps=100, dt=0.01)
    own: dict[str, Any] = {"dt": 0.01, "num_steps": 1000, "observed": torch.tensor([5])}
    paths = [
        _warns(lambda p=p: FractionalSDE(lambda t, x: -x, 1.0, p, **own), "longer", "nats")
        for p in (published, table)
    ]
    times = torch.cat([torch.arange(99, dtype=F64), torch.tensor([1e5], dtype=F64)])
    return all(paths) and _warns(lambda: _fit(_series(100), times), "far longer", "nats")


def _float32() -> bool:
    model = _fit(_series().float())
    found = model.predict([60.0])["mean"]
    gap = found - _fit(_series().float().double()).predict([60.0])["mean"]
    return found.dtype == torch.float64 and float(gap.abs()) < 1e-12


def _duplicates_without_noise() -> bool:
    grid = torch.arange(60, dtype=F64)
    grid[30] = grid[29]
    return _raises(lambda: _fit(_series(), grid, noise=False), "strictly increasing", "index 30")


def _scheme() -> bool:
    process = MarkovApproxFBM(0.3, num_steps=100, dt=0.01)
    times = torch.linspace(0, 1, 11, dtype=F64)

    def solve(method: str) -> Callable[[], object]:
        start = torch.zeros(2, 1, dtype=F64)
        terms = (lambda t, x: -x, lambda t, x: torch.ones_like(x))
        rest: dict[str, Any] = {"backend": "torchsde", "method": method}
        return lambda: solve_sde(*terms, process, times, start, **rest)

    return _raises(solve("reversible_heun"), "exact") and _raises(solve("euler"), "0.5", "exact")


def _diffusion() -> bool:
    own: dict[str, Any] = {"dt": 0.01, "num_steps": 50, "observed": torch.tensor([5])}

    def build(diffusion: Any) -> Callable[[], object]:
        return lambda: FractionalSDE(lambda t, x: -x, diffusion, 0.3, **own)

    negative = _raises(build(lambda t, x: -torch.ones_like(x)), "must be positive", "softplus")
    zero = _raises(build(0.0), "must be positive")
    return negative and zero and _raises(build(lambda t, x: x[..., 0]), "shape of the state")


class _Exploding(torch.nn.Module):
    """A drift that is finite until its parameter has moved."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = torch.nn.Parameter(torch.tensor(-1.0, dtype=F64))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.rate * x + torch.where(self.rate > -0.8, torch.inf, 0.0) * (1 + x.abs())


def _not_finite() -> bool:
    grid = torch.arange(2, 21, 2)
    drift = _Exploding()
    sde = FractionalSDE(drift, 0.5, 0.3, dt=0.05, num_steps=20, observed=grid, num_paths=4)
    y = torch.linspace(0, 9, 10, dtype=F64)[:, None]
    guide = ControlGuide(sde, y)
    engine = SVI(steps=30, learning_rate=0.02, guide=lambda y: None, num_diagnostic_samples=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProbkitWarning)
        found = fit(guide.model, y, engine=engine)
    kept = bool(drift.rate.isfinite()) and float(drift.rate.detach()) < -0.7
    told = found.status is Status.NON_FINITE and "step" in found.detail
    return told and kept and isinstance(found.posterior, PointEstimate)


def _type_two() -> bool:
    law = _raises(lambda: MarkovApproxFBM(0.3, kind="II"), "stationary increments", "l2")
    process = MarkovApproxFBM(0.3, kind="II", weights="l2", num_steps=50)
    return law and _raises(lambda: process.increment_covariance(5), "not stationary", 'kind="I"')


CHECKS: dict[str, Callable[[], bool]] = {
    "a Hurst index outside its range, or NaN": _index_off_range,
    "no kind, or an unknown one": _kind_required,
    "levels for increments, and the reverse": _kinds_swapped,
    "increments far from mean zero": _mean_of_increments,
    "unsorted and duplicate times": _times,
    "numbers among dates": _mixed_units,
    "missing and infinite values": _missing_and_infinite,
    "constant series": _constant,
    "seven values": _short,
    "rates equal, not positive, too wide or too close": _rates,
    "paths and series beyond horizon or table": _too_long,
    "float32 data": _float32,
    "duplicate times without noise": _duplicates_without_noise,
    "reversible Heun, and Euler steps too large": _scheme,
    "diffusion of the wrong sign or shape": _diffusion,
    "an ELBO that is no longer finite": _not_finite,
    "type II where increments must be stationary": _type_two,
}
