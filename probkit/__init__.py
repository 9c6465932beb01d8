"""probkit: structured, fast and calibrated Bayesian models for Pyro and GPyTorch users.

``import probkit`` is cheap: the names below are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probkit import infer
    from probkit.infer import (
        CAVI,
        CVI,
        EM,
        HMC,
        MAP,
        NUTS,
        SVI,
        FitResult,
        GaussNewton,
        Gibbs,
        Laplace,
        Status,
        calibrate,
        fit,
    )

__version__ = "0.1.0"

__all__ = [
    "CAVI",
    "CVI",
    "EM",
    "HMC",
    "MAP",
    "NUTS",
    "SVI",
    "FitResult",
    "GaussNewton",
    "Gibbs",
    "Laplace",
    "Status",
    "calibrate",
    "fit",
    "infer",
]


def __getattr__(name: str) -> Any:
    if name == "infer":
        return import_module("probkit.infer")
    if name in __all__:
        return getattr(import_module("probkit.infer"), name)
    raise AttributeError(f"module 'probkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
