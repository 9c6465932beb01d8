"""One small fit of every family and engine: for long runs, interrupts and checks of global state.

Each returns numbers that decide whether two fits are the same: draws or moments, and the history.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from numpy.typing import NDArray
from torch import Tensor

import probkit
from probkit.infer import CAVI, HMC, MAP, NUTS, SVI, FitResult, Gibbs, Laplace

__all__ = ["FITS", "RESUMABLE", "Numbers", "Options"]

Numbers = dict[str, NDArray[Any]]


class Options(NamedTuple):
    """What is passed on to the fit."""

    seed: int = 0
    checkpoint: Path | None = None
    resume: bool = False
    callbacks: tuple[Any, ...] = ()

    def restart(self) -> dict[str, Any]:
        """As keyword arguments."""
        return {
            "checkpoint": self.checkpoint,
            "resume": self.resume,
            "callbacks": list(self.callbacks),
        }


def _normal(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _regression(x: Tensor, y: Tensor) -> None:
    weights = pyro.sample("weights", dist.Normal(x.new_zeros(x.shape[-1]), 1.0).to_event(1))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal((x * weights).sum(-1), 1.0), obs=y)


def _by_engine(engine: Any) -> Callable[[Options], Numbers]:
    def run(options: Options) -> Numbers:
        x = _normal(40, 3, seed=options.seed)
        y = x.sum(-1) + _normal(40, seed=options.seed + 1)
        found = probkit.fit(
            _regression, (x, y), engine=engine, seed=options.seed, **options.restart()
        )
        return _numbers(found)

    return run


def _numbers(result: FitResult) -> Numbers:
    out = {name: value.detach().numpy() for name, value in result.posterior.tensors().items()}
    return {**out, "objective": np.asarray(result.history["objective"])}


def _tensor(options: Options, gibbs: bool = False) -> Numbers:
    from probkit.tensor import FunctionalTucker

    engine: Any = CAVI(max_sweeps=12, checkpoint_every=1)
    if gibbs:
        engine = Gibbs(num_samples=4, num_warmup=1, num_chains=1)
    generator = torch.Generator().manual_seed(options.seed)
    x = torch.rand(80, 2, generator=generator, dtype=torch.float64).mul(9).round() / 9
    y = torch.sin(4 * x[:, 0]) * (1 + x[:, 1]) + 0.1 * _normal(80, seed=options.seed)
    model = FunctionalTucker(
        1,
        kernels="matern32",
        likelihood="gaussian",
        num_starts=1,
        calibrate=False,
        engine=engine,
        seed=options.seed,
    )
    return _numbers(model.fit(x, y, **options.restart()).result_)


def _tensor_gibbs(options: Options) -> Numbers:
    return _tensor(options, gibbs=True)


def _sparse(options: Options) -> Numbers:
    from probkit.sparse import KroneckerSBL, simulate_recovery

    problem = simulate_recovery(
        num_atoms=8, num_measurements=(5, 6), is_complex=True, seed=options.seed
    )
    model = KroneckerSBL(starts=("flat",), max_steps=2000)
    return _numbers(model.fit(problem.y, problem.dictionaries, **options.restart()).result_)


def _pde(options: Options) -> Numbers:
    from probkit.pde import CASES, GPSolver

    solution = GPSolver().fit(CASES["poisson_sin100"].problem(400), seed=options.seed)
    return _numbers(solution.result)


def _pde_grid(options: Options) -> Numbers:
    from probkit.pde import PDE, Box, Condition, GPSolver, Problem, Term

    box = Box([(0.0, 1.0), (0.0, 1.0)], (24, 24))
    faces = [Condition.dirichlet((axis, end)) for axis in (0, 1) for end in (0, 1)]
    pde = PDE([Term(1.0, (2, 0)), Term(1.0, (0, 2))])
    problem = Problem(pde, box, faces, lambda x: torch.sin(3 * x[..., 0]) * x[..., 1])
    return _numbers(GPSolver().fit(problem, seed=options.seed).result)


def _hurst(options: Options) -> Numbers:
    from probkit.fractional import HurstModel
    from probkit.statespace.fractional_noise import sample_fgn

    y = sample_fgn(0.3, 60, 1, seed=options.seed)[0]
    model = HurstModel("increments", noise=False, grid_size=11, num_samples=50, seed=options.seed)
    return _numbers(model.fit(y).result_)


def _hurst_nuts(options: Options) -> Numbers:
    from probkit.fractional import HurstModel
    from probkit.statespace.fractional_noise import sample_fgn

    y = sample_fgn(0.3, 40, 1, seed=options.seed)[0].cumsum(0)
    engine = NUTS(num_samples=4, num_warmup=4, num_chains=1, compile="off")
    return _numbers(HurstModel("levels", engine=engine, seed=options.seed).fit(y).result_)


def _sde(options: Options) -> Numbers:
    from probkit.fractional import FractionalSDE, MarkovGaussianGuide

    observed = torch.arange(5, 21, 5)
    sde = FractionalSDE(
        lambda t, x: -x, 0.5, 0.7, dt=0.05, num_steps=20, observed=observed, num_paths=4
    )
    _, y = sde.simulate(seed=options.seed)
    paths = MarkovGaussianGuide(sde, y).sample(5, seed=options.seed)
    return {"x": paths.path.x.detach().numpy(), "weight": paths.log_weight.detach().numpy()}


def _kde(options: Options) -> Numbers:
    from probkit.privacy import PrivacyAccountant
    from probkit.similarity import PrivateKDE

    sketch = PrivateKDE(2, bandwidth=0.5, num_features=32, seed=options.seed)
    sketch.update(_normal(100, 2, seed=options.seed))
    release = sketch.release(PrivacyAccountant(epsilon=1.0), testing_seed=options.seed)
    answer = release.query(_normal(10, 2, seed=9))
    return {"value": answer.value.numpy(), "sd": answer.sd.numpy()}


def _classifier(options: Options) -> Numbers:
    from probkit.privacy import PrivacyAccountant
    from probkit.similarity import ClassSketch

    x = _normal(200, 2, seed=options.seed)
    sketch = ClassSketch(2, [0, 1], bandwidth=0.7, num_features=32, seed=options.seed)
    sketch.update(x, (x[:, 0] > 0).long())
    release = sketch.release(PrivacyAccountant(epsilon=4.0), testing_seed=options.seed)
    return {"value": release.query(x[:10]).value.numpy()}


_FEW = {"num_posterior_samples": 40, "num_diagnostic_samples": 30}

FITS: dict[str, Callable[[Options], Numbers]] = {
    "svi": _by_engine(SVI(steps=60, window=20, checkpoint_every=5, compile="off", **_FEW)),
    "svi minibatches": _by_engine(
        SVI(steps=60, window=20, batch_size=8, checkpoint_every=5, compile="off", **_FEW)
    ),
    "map": _by_engine(MAP()),
    "laplace": _by_engine(Laplace(num_posterior_samples=40)),
    "hmc": _by_engine(HMC(num_samples=60, num_warmup=40, num_chains=2, compile="off")),
    "nuts": _by_engine(NUTS(num_samples=8, num_warmup=8, num_chains=1, compile="off")),
    "tensor": _tensor,
    "tensor gibbs": _tensor_gibbs,
    "sparse": _sparse,
    "pde": _pde,
    "pde grid": _pde_grid,
    "hurst": _hurst,
    "hurst nuts": _hurst_nuts,
    "sde": _sde,
    "private kde": _kde,
    "private classes": _classifier,
}
RESUMABLE = ("svi", "svi minibatches", "hmc", "tensor", "sparse")
