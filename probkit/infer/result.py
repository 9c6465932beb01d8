"""The one result type: how a fit ended, its posterior, and what is known about its quality."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from probkit.errors import CheckpointError, ConfigurationError, message
from probkit.infer.datatree import build_datatree, model_groups
from probkit.infer.importance import WeightedDraws
from probkit.infer.model_checks import ModelChecks
from probkit.infer.persistence import load_parts, save_parts
from probkit.infer.posterior import DrawsPosterior
from probkit.infer.protocols import PosteriorLike, State
from probkit.infer.resolution import coarse_unknowns
from probkit.infer.status import Status
from probkit.infer.summary import summarize
from probkit.infer.verdict import Verdict, judge
from probkit.random import as_generator
from probkit.validation import check_whole

__all__ = ["FitResult"]

_MOST = 10**9


@dataclass
class FitResult:
    """What every engine returns.

    Attributes:
        status: why the fit stopped.
        posterior: ``mean()``, ``sd()``, ``quantile(q)``, ``sample(n, generator)`` by site name.
        history: arrays of equal length, among them ``objective``, ``segment`` and ``seconds``
            (CPU seconds since the start).
        diagnostics: figures and warnings that tell whether to trust the posterior.
        provenance: versions, seed, dtype, device, settings, data digest, engine and reason.
        detail: the error message or place where a broken fit stopped.
        state: the flat state of the algorithm (for SVI the parameters, ``param.NAME``); not saved.
        importance: draws with importance weights, for corrected moments; None where there are none.
        checks: the Pyro model with its data, for predictions and likelihoods; None where the model
            is of another kind, or the result was loaded or unpickled.
    """

    status: Status
    posterior: PosteriorLike
    history: Mapping[str, NDArray[np.float64]]
    diagnostics: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    detail: str = ""
    resume_with: Callable[..., FitResult] | None = field(default=None, repr=False, compare=False)
    state: State = field(default_factory=dict, repr=False, compare=False)
    importance: WeightedDraws | None = field(default=None, repr=False, compare=False)
    checks: ModelChecks | None = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        # these hold model and data; a pickled result goes without
        return {**self.__dict__, "resume_with": None, "checks": None}

    def __repr__(self) -> str:
        # histories and draws are long; summary() has the figures
        colour, kind = self.verdict.colour, type(self.posterior).__name__
        return f"FitResult({self.status.name}, {colour}, posterior={kind})"

    @property
    def verdict(self) -> Verdict:
        """Whether to trust the fit, by its status, diagnostics and the dtype of its unknowns."""
        return judge(self.status, self.diagnostics, coarse_unknowns(self.posterior))

    def summary(self, *, num_rows: int = 20) -> str:
        """The verdict with its reasons, how the fit ended, and moments of the first unknowns.

        Args:
            num_rows: scalars to list.
        """
        return summarize(self, num_rows)

    def check(self, *, num_samples: int = 500, seed: int = 0) -> Verdict:
        """Judge the model against its data: leave-one-out and predictive checks.

        The figures are added to ``diagnostics`` as ``loo`` and ``predictive_p`` by observed site.

        Args:
            num_samples: posterior draws.
            seed: of draws and replicated data.

        Returns:
            The verdict with these checks.

        Raises:
            ConfigurationError: the result does not hold a Pyro model and its data.
        """
        check_whole("num_samples", num_samples, 1, _MOST)
        found = self._checks().check(self.posterior, num_samples, seed)
        self.diagnostics.update(found)
        return self.verdict

    def replicate(self, *, num_samples: int = 200, seed: int = 0) -> dict[str, Tensor]:
        """Data sets drawn from the fitted model, ``(num_samples, *shape)`` by observed site.

        Raises:
            ConfigurationError: the result does not hold a Pyro model and its data.
        """
        check_whole("num_samples", num_samples, 1, _MOST)
        generator = as_generator(seed)
        draws = self.posterior.sample(num_samples, generator)
        return self._checks().replicate(draws, generator)

    def prior(self, *, num_samples: int = 200, seed: int = 0) -> dict[str, Tensor]:
        """Unknowns and data drawn from the model alone, ``(num_samples, *shape)`` by site.

        Raises:
            ConfigurationError: the result does not hold a Pyro model and its data.
        """
        check_whole("num_samples", num_samples, 1, _MOST)
        return self._checks().prior(num_samples, seed)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Predictions of the fitted model at new inputs; see the posterior's ``predict``.

        Raises:
            ConfigurationError: the posterior has no predictions of its own.
        """
        return self._delegate("predict")(*args, **kwargs)

    def log_likelihood(self, *args: Any, **kwargs: Any) -> Any:
        """Pointwise log predictive density of data; see the posterior's ``log_likelihood``.

        For a Pyro model without arguments, log p(y_n | z_s) of its own data at every posterior
        draw: by observed site, ``(draw, *batch)``.
        """
        if self.checks is not None and isinstance(self.posterior, DrawsPosterior):
            draws = {name: value.flatten(0, 1) for name, value in self.posterior.draws.items()}
            return self.checks.log_likelihood(draws, *args, **kwargs)
        return self._delegate("log_likelihood")(*args, **kwargs)

    def resume(self, **kwargs: Any) -> FitResult:
        """Go on from where the fit stopped; keyword arguments override the engine's settings.

        Raises:
            ConfigurationError: the result was loaded from a file or unpickled, so that model and
                data are not at hand.
        """
        if self.resume_with is None:
            raise ConfigurationError(
                message(
                    "This result cannot be resumed: it does not hold its model and data",
                    remedy="call fit again with the same data and checkpoint directory",
                )
            )
        return self.resume_with(**kwargs)

    def to_datatree(
        self, *, num_samples: int = 200, seed: int = 0, include: Sequence[str] = ()
    ) -> xr.DataTree:
        """Groups ``posterior`` (chain, draw, ...), ``sample_stats`` and others for ArviZ.

        Args:
            num_samples: draws taken from a posterior that is not held as draws, and of the prior.
            seed: of those draws.
            include: further groups, of a Pyro model whose result was not loaded from a file:
                ``log_likelihood``, ``posterior_predictive``, ``prior``, ``prior_predictive``,
                ``observed_data``.

        Raises:
            ConfigurationError: an unknown group, or the model and its data are not at hand.
        """
        check_whole("num_samples", num_samples, 1, _MOST)
        groups = {}
        if include:
            groups = model_groups(self._checks(), self.posterior, include, num_samples, seed)
        arguments = (self.posterior, self.provenance, self.diagnostics, num_samples, seed)
        return build_datatree(*arguments, groups)

    def save(self, directory: str | Path) -> Path:
        """Write ``manifest.json``, ``state.safetensors`` and ``posterior.nc``; no pickle, no data.

        Files of an earlier result in the directory are replaced.
        """
        record = {
            "status": self.status.value,
            "history": {name: [float(v) for v in column] for name, column in self.history.items()},
            "diagnostics": self.diagnostics,
            "provenance": self.provenance,
            "detail": self.detail,
        }
        extra = {} if self.importance is None else self.importance.tensors()
        tree = self.to_datatree()
        return save_parts(Path(directory), self.posterior, record, tree, importance=extra)

    @classmethod
    def load(
        cls, directory: str | Path, *, expect: type | tuple[type, ...] | None = None
    ) -> FitResult:
        """Read a result written by :meth:`save`; neither model nor data are needed.

        Args:
            directory: what :meth:`save` wrote.
            expect: the class that the posterior must have, or several to choose from, for who can
                use no other.

        Raises:
            CheckpointError: missing or damaged files, a newer format, or a posterior of another
                class.
        """
        posterior, record, extra = load_parts(Path(directory))
        if expect is not None and not isinstance(posterior, expect):
            classes = expect if isinstance(expect, tuple) else (expect,)
            raise CheckpointError(
                message(
                    "The result is of another model",
                    where=str(directory),
                    got=type(posterior).__name__,
                    expected=" or ".join(kind.__name__ for kind in classes),
                    remedy="load it with the class that saved it, or with FitResult.load",
                )
            )
        history = {name: np.asarray(column) for name, column in record["history"].items()}
        try:
            status, diagnostics = Status(record["status"]), record["diagnostics"]
            judge(status, diagnostics)
            importance = WeightedDraws.from_tensors(extra) if extra else None
        except Exception as error:  # a record that was altered by hand can fail in any way
            raise CheckpointError(
                message(
                    f"The record of the fit is unusable: {type(error).__name__}: {error}",
                    where=str(directory),
                    remedy="give the directory that save() wrote",
                )
            ) from error
        provenance, detail = record["provenance"], record["detail"]
        return cls(
            status, posterior, history, diagnostics, provenance, detail, importance=importance
        )

    def _checks(self) -> ModelChecks:
        if self.checks is None:
            raise ConfigurationError(
                message(
                    "This result does not hold a Pyro model with its data",
                    causes=("it was loaded from a file or unpickled", "the model holds its data"),
                    remedy="call fit again, or use the model itself",
                )
            )
        return self.checks

    def _delegate(self, name: str) -> Callable[..., Any]:
        function: Callable[..., Any] | None = getattr(self.posterior, name, None)
        if function is None:
            raise ConfigurationError(
                message(
                    f"{type(self.posterior).__name__} has no {name}",
                    remedy="use posterior.sample and the model itself",
                )
            )
        return function
