"""``probkit.fit``: one entry for every model and engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from probkit.errors import ConfigurationError, message
from probkit.infer.callbacks import Callback
from probkit.infer.cavi import CAVI
from probkit.infer.densities import SmoothDensity
from probkit.infer.em import EM, ExpectationMaximization
from probkit.infer.gauss_newton import GaussNewton, LeastSquares
from probkit.infer.gibbs import Gibbs
from probkit.infer.hmc import HMC
from probkit.infer.laplace import Laplace
from probkit.infer.maximum import MAP
from probkit.infer.nuts import NUTS
from probkit.infer.protocols import EngineLike, GibbsModel, Sweep
from probkit.infer.result import FitResult
from probkit.infer.svi import SVI
from probkit.random import Seed

__all__ = ["fit"]

Engine = CAVI | EM | GaussNewton | Gibbs | HMC | Laplace | MAP | NUTS | SVI


def fit(
    model: Any,
    data: Any = None,
    *,
    engine: Engine | EngineLike | str = "auto",
    seed: Seed = 0,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
    callbacks: Sequence[Callback] = (),
) -> FitResult:
    """Fit a model with the engine that suits it, or with the one given.

    "auto" takes ``CAVI`` for a model with sweeps, ``EM`` for one with an E- and an M-step,
    ``GaussNewton`` for one with residuals, ``Gibbs`` for one with Gibbs steps, ``Laplace`` for a
    smooth density, and ``SVI`` for any other callable, which is taken to be a Pyro model. The
    choice and its reason are in ``result.provenance``.

    Args:
        model: a Pyro model, or an object with the methods of ``Sweep``,
            ``ExpectationMaximization``, ``LeastSquares``, ``GibbsModel`` or ``SmoothDensity``;
            such an object holds its data itself.
        data: arguments of a Pyro model: a tensor, a tuple of arguments or a dict of keywords.
        engine: "auto", an engine such as ``SVI(steps=5000)``, or one of your own (``EngineLike``).
        seed: of everything random.
        checkpoint: directory for the checkpoint; None for none.
        resume: go on from that checkpoint if it exists.
        progress: show a progress bar.
        callbacks: called after every step.

    Raises:
        ConfigurationError: the model lacks what the engine needs, or data were given for a model
            that holds its own.

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> def model(y):
        ...     mu = pyro.sample("mu", dist.Normal(torch.zeros((), dtype=y.dtype), 10.0))
        ...     with pyro.plate("data", len(y)):
        ...         pyro.sample("y", dist.Normal(mu, 1.0), obs=y)
        >>> result = fit(model, torch.ones(20, dtype=torch.float64), engine=SVI(steps=50))
        >>> result.provenance["engine"], result.provenance["reason"]
        ('SVI', 'asked for')
    """
    chosen, reason = _choose(model, engine)
    common: dict[str, Any] = {
        "seed": seed,
        "reason": reason,
        "checkpoint": checkpoint,
        "resume": resume,
        "progress": progress,
        "callbacks": callbacks,
    }
    if not isinstance(chosen, Engine):
        found: FitResult = chosen.fit(model, data, **common)
        return found
    if isinstance(chosen, SVI | HMC | NUTS | MAP):
        _require(callable(model), model, chosen, "a callable Pyro model")
        return chosen.fit(model, data, **common)
    if isinstance(chosen, Laplace) and not isinstance(model, SmoothDensity):
        _require(callable(model), model, chosen, "a callable Pyro model, or a SmoothDensity")
        return chosen.fit(model, data, **common)
    if data is not None:
        raise ConfigurationError(
            message(
                f"{type(chosen).__name__} fits models that hold their data themselves",
                where="data",
                got=type(data).__name__,
                expected="None",
                remedy="build the model with its data and call fit(model)",
            )
        )
    return _fit_structured(chosen, model, common)


def _fit_structured(chosen: Engine, model: Any, common: dict[str, Any]) -> FitResult:
    """A model that holds its data, with the engine for its methods."""
    if isinstance(chosen, CAVI):
        _require(isinstance(model, Sweep), model, chosen, "initialize, sweep and posterior")
    elif isinstance(chosen, EM):
        expected = "initialize, e_step, m_step and posterior"
        _require(isinstance(model, ExpectationMaximization), model, chosen, expected)
    elif isinstance(chosen, GaussNewton):
        expected = "initialize, residual and linearize"
        _require(isinstance(model, LeastSquares), model, chosen, expected)
    elif isinstance(chosen, Gibbs):
        expected = "initialize, gibbs_step and draw"
        _require(isinstance(model, GibbsModel), model, chosen, expected)
    return chosen.fit(model, **common)


def _choose(model: Any, engine: Engine | EngineLike | str) -> tuple[Engine | EngineLike, str]:
    """The engine and why it was taken."""
    if isinstance(engine, EngineLike) and not isinstance(engine, type):
        return engine, "asked for"
    if engine != "auto":
        raise ConfigurationError(
            message(
                "An engine must be an engine object",
                where="engine",
                got=repr(engine),
                expected='"auto", an engine such as SVI(...), or an object with a method fit',
            )
        )
    if isinstance(model, Sweep):
        return CAVI(), "auto: the model has sweeps of exact updates"
    if isinstance(model, ExpectationMaximization):
        return EM(), "auto: the model has an E- and an M-step"
    if isinstance(model, LeastSquares):
        return GaussNewton(), "auto: the model is a sum of squared residuals"
    if isinstance(model, GibbsModel):
        return Gibbs(), "auto: the model has exact conditional draws"
    if isinstance(model, SmoothDensity):
        return Laplace(), "auto: the model is a smooth density of its own structure"
    return SVI(), "auto: the model is a Pyro model without structure known to other engines"


def _require(holds: bool, model: Any, engine: Engine, expected: str) -> None:
    if not holds:
        raise ConfigurationError(
            message(
                f"{type(engine).__name__} cannot fit this model",
                where="model",
                got=type(model).__name__,
                expected=expected,
            )
        )
