"""Settings of the solver, checked, and what every route makes of them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.infer.engine import Run
from probkit.infer.provenance import data_digest
from probkit.pde.problem import Problem
from probkit.pde.spectrum import SpectralPrior
from probkit.random import Seed
from probkit.validation import check_positive, check_whole, require_choice

__all__ = ["METHODS", "SolverSettings"]

METHODS = ("auto", "dense", "separable", "rows", "map")


@dataclass(frozen=True)
class SolverSettings:
    """Settings of :class:`probkit.pde.GPSolver`; see there."""

    method: str = "auto"
    extension: float = 2.0
    num_sweeps: int = 4
    max_newton: int = 20
    max_features: int = 1200
    max_products: int = 3000
    max_epochs: int = 10_000
    max_seconds: float | None = None
    band_limit: float | None = None
    prior: SpectralPrior | None = None

    def __post_init__(self) -> None:
        require_choice(self, "method", METHODS)
        for name in ("max_newton", "max_features", "max_products", "max_epochs"):
            object.__setattr__(self, name, check_whole(name, getattr(self, name), 1, sys.maxsize))
        check_whole("num_sweeps", self.num_sweeps, 0, sys.maxsize)
        for name in ("band_limit", "max_seconds"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, check_positive(name, getattr(self, name)))
        if check_positive("extension", self.extension) < 1:
            raise ConfigurationError(
                message(
                    "A setting is out of its range",
                    where="extension",
                    got=self.extension,
                    expected=">= 1",
                )
            )

    def run(
        self,
        problem: Problem,
        method: str,
        reason: str,
        data: tuple[Tensor, ...],
        seed: Seed,
        progress: bool,
    ) -> Run:
        """The record of one solve."""
        settings: dict[str, Any] = {
            "equation": repr(problem.pde),
            "method": method,
            "extension": self.extension,
            "num_sweeps": self.num_sweeps,
            "max_newton": self.max_newton,
            "max_features": self.max_features,
            "max_products": self.max_products,
            "max_epochs": self.max_epochs,
            "max_seconds": self.max_seconds,
            "band_limit": self.band_limit,
            "prior": None if self.prior is None else type(self.prior).__name__,
        }
        return Run(
            engine="GPSolver",
            settings=settings,
            limits=("max_newton", "max_epochs", "max_seconds"),
            seed=seed,
            data=data_digest(*data),
            reason=reason,
            checkpoint=None,
            resume=False,
            callbacks=(),
            progress=progress,
            every=1,
        )
