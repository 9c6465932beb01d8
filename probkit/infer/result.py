"""The one result type: how a fit ended, its posterior, and what is known about its quality."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from probkit.errors import ConfigurationError, message
from probkit.infer.datatree import build_datatree
from probkit.infer.importance import WeightedDraws
from probkit.infer.persistence import load_parts, save_parts
from probkit.infer.protocols import PosteriorLike, State
from probkit.infer.status import Status

__all__ = ["FitResult"]


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

    def __getstate__(self) -> dict[str, Any]:
        # the closure that resumes a fit holds model and data; a pickled result goes without
        return {**self.__dict__, "resume_with": None}

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Predictions of the fitted model at new inputs; see the posterior's ``predict``.

        Raises:
            ConfigurationError: the posterior has no predictions of its own.
        """
        return self._delegate("predict")(*args, **kwargs)

    def log_likelihood(self, *args: Any, **kwargs: Any) -> Any:
        """Pointwise log predictive density of data; see the posterior's ``log_likelihood``."""
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

    def to_datatree(self, *, num_samples: int = 200, seed: int = 0) -> xr.DataTree:
        """Groups ``posterior`` (chain, draw, ...), ``sample_stats`` and others for ArviZ.

        Args:
            num_samples: draws taken from a posterior that is not held as draws.
            seed: of those draws.
        """
        return build_datatree(self.posterior, self.provenance, self.diagnostics, num_samples, seed)

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
    def load(cls, directory: str | Path) -> FitResult:
        """Read a result written by :meth:`save`; neither model nor data are needed.

        Raises:
            CheckpointError: missing or damaged files, or a newer format.
        """
        posterior, record, extra = load_parts(Path(directory))
        history = {name: np.asarray(column) for name, column in record["history"].items()}
        return cls(
            Status(record["status"]),
            posterior,
            history,
            record["diagnostics"],
            record["provenance"],
            record["detail"],
            importance=WeightedDraws.from_tensors(extra) if extra else None,
        )

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
