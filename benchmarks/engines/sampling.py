"""E3: effective samples of HMC, of Pyro's NUTS and of NumPyro's compiled NUTS loop.

CPU seconds of one thread, one chain for the peers. Effective samples are the smallest bulk ESS
over all unknowns. "Sampling phase" leaves out tracing, compiling and warm-up; "as called" counts
all of it, for 1000 effective samples, with a compile cache that starts empty. Where a run had
fewer, its sampling phase is extended in proportion; no second warm-up is charged. Quantiles are
compared with those of a NumPyro chain of 2000 draws: from 500, the stated errors of quantiles are
themselves too small by up to half (seen where the exact quantile is known).
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
from numpy.typing import NDArray

from benchmarks.engines.models import CASES, Case
from benchmarks.engines.numpyro_models import numpyro_case
from benchmarks.frame import Context, Line, cpu_seconds, row
from probkit.infer import HMC, pyro_seed

__all__ = ["sampling"]

_WANTED = 1000.0
_LEVELS = (0.05, 0.5, 0.95)
_DRAWS = {"regression": 200, "schools": 200, "logistic": 600, "gp": 600, "hierarchical": 400}


@dataclass(frozen=True)
class _Run:
    """Draws (chain, draw, *event) by site, and CPU seconds in all and of the sampling phase."""

    draws: dict[str, NDArray[np.float64]]
    total: float
    phase: float
    divergences: int

    @property
    def ess(self) -> float:
        return min(float(_ess(value).min()) for value in self.draws.values())

    @property
    def rate(self) -> float:
        return self.ess / self.phase

    @property
    def as_called(self) -> float:
        """CPU seconds to 1000 effective samples, the start included."""
        return self.total + max(_WANTED / self.ess - 1, 0.0) * self.phase


@row("E3", "effective samples")
def sampling(context: Context) -> Iterator[Line]:
    """Five models against Pyro and NumPyro."""
    for name, case in CASES.items():
        ours = _hmc(case, context.size(_DRAWS[name], 20))
        numpyro = _numpyro(name, context.size(500, 20))
        pyro_run = _pyro(case, context.size(100, 5))
        what = f"{name}: effective samples per CPU second"
        yield Line(f"{name}_pyro", f"{what}, HMC / Pyro NUTS", ours.rate, pyro_run.rate)
        yield Line(f"{name}_numpyro", f"{what}, HMC / NumPyro loop", ours.rate, numpyro.rate)
        what = f"{name}: 1000 effective samples as called"
        yield Line(f"{name}_called_pyro", f"{what}, / Pyro", ours.as_called, pyro_run.as_called)
        yield Line(
            f"{name}_called_numpyro", f"{what}, / NumPyro", ours.as_called, numpyro.as_called
        )
        what = f"{name}: largest gap of quantiles, in Monte Carlo errors"
        yield Line(f"{name}_quantiles", what, _gap(ours, _numpyro(name, context.size(2000, 20))))
        yield Line(f"{name}_divergences", f"{name}: divergences", float(ours.divergences))


def _hmc(case: Case, num_samples: int) -> _Run:
    before = os.environ.get("PROBKIT_CACHE_DIR")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PROBKIT_CACHE_DIR"] = folder
        try:
            start = cpu_seconds()
            result = HMC(num_samples=num_samples).fit(case.full, case.data, seed=0)
            total = cpu_seconds() - start  # the compiler is a child process, whose time counts
        finally:
            if before is None:
                del os.environ["PROBKIT_CACHE_DIR"]
            else:
                os.environ["PROBKIT_CACHE_DIR"] = before
    seconds, segment = result.history["seconds"], result.history["segment"]
    phase = float(seconds[-1] - seconds[segment == 0][-1])
    draws = {name: value.numpy() for name, value in result.posterior.draws.items()}
    return _Run(draws, total, phase, sum(result.diagnostics["divergences"]))


def _pyro(case: Case, num_samples: int) -> _Run:
    """Pyro's NUTS with as long a warm-up as draws: its rate is that of the draws alone."""
    clock: dict[str, float] = {}

    def look(kernel: Any, values: Any, stage: str, index: int) -> None:
        if stage.lower().startswith("warm") and index == num_samples - 1:
            clock["warm"] = time.process_time()

    kernel = pyro.infer.NUTS(case.full)
    mcmc = pyro.infer.MCMC(kernel, num_samples, num_samples, disable_progbar=True, hook_fn=look)
    start = time.process_time()
    with pyro_seed(0):
        mcmc.run(*case.data)
    end = time.process_time()
    draws = {k: v.numpy() for k, v in mcmc.get_samples(group_by_chain=True).items()}
    divergent = sum(len(v) for v in mcmc.diagnostics()["divergences"].values())
    return _Run(draws, end - start, end - clock["warm"], divergent)


def _numpyro(name: str, num_samples: int) -> _Run:
    """NumPyro: the first call as a user makes it, and its compiled loop alone."""
    case = numpyro_case(name)
    import jax
    from numpyro.infer import MCMC, NUTS

    start = time.process_time()
    mcmc = MCMC(
        NUTS(case.full), num_warmup=num_samples, num_samples=num_samples, progress_bar=False
    )
    mcmc.run(jax.random.PRNGKey(0), *case.data)
    draws = {k: np.asarray(v) for k, v in mcmc.get_samples(group_by_chain=True).items()}
    total = time.process_time() - start
    kernel, state = mcmc.sampler, mcmc.last_state

    def loop(first: Any) -> Any:
        def body(one: Any, _: Any) -> Any:
            new = kernel.sample(one, case.data, {})
            return new, new.potential_energy

        return jax.lax.scan(body, first, None, length=num_samples)

    compiled = jax.jit(loop).lower(state).compile()
    start = time.process_time()
    jax.block_until_ready(compiled(state))
    phase = time.process_time() - start
    divergent = int(np.asarray(mcmc.get_extra_fields()["diverging"]).sum())
    return _Run(draws, total, phase, divergent)


def _gap(one: _Run, other: _Run) -> float:
    """Largest difference of a quantile over unknowns and levels, in joint standard errors."""
    worst = 0.0
    for name, value in other.draws.items():
        parts = [(_quantiles(x), _quantile_errors(x)) for x in (one.draws[name], value)]
        (a, sa), (b, sb) = parts
        worst = max(worst, float((np.abs(a - b) / np.hypot(sa, sb)).max()))
    return worst


def _scalars(value: NDArray[np.float64]) -> NDArray[np.float64]:
    return value.reshape(*value.shape[:2], -1)


def _ess(value: NDArray[np.float64]) -> NDArray[np.float64]:
    from arviz_stats.base import array_stats

    found = array_stats.ess(_scalars(value), chain_axis=0, draw_axis=1, method="bulk")
    return np.asarray(found)


def _quantiles(value: NDArray[np.float64]) -> NDArray[np.float64]:
    flat = _scalars(value)
    return np.quantile(flat.reshape(-1, flat.shape[-1]), _LEVELS, axis=0)


def _quantile_errors(value: NDArray[np.float64]) -> NDArray[np.float64]:
    from arviz_stats.base import array_stats

    flat = _scalars(value)
    return np.stack(
        [
            array_stats.mcse(flat, chain_axis=0, draw_axis=1, method="quantile", prob=level)
            for level in _LEVELS
        ]
    )
