"""Detrended fluctuation analysis and rescaled range by nolds 0.5.2, as its users run them.

The package's data sets need ``pkg_resources``, which setuptools no longer has, so the module of
the estimators is loaded by itself.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np

__all__ = ["dfa", "rescaled_range"]


def dfa(series: np.ndarray) -> tuple[float, float]:
    """Exponents of a stationary series: by the default robust line (RANSAC), by least squares."""
    robust, (sizes, fluctuations, _) = _measures().dfa(series, debug_data=True)
    plain = float(np.polyfit(sizes, fluctuations, 1)[0])
    return float(robust), plain


def rescaled_range(series: np.ndarray) -> float:
    """Hurst index of a stationary series by R/S, corrected for short windows (the default)."""
    return float(_measures().hurst_rs(series))


@cache
def _measures() -> ModuleType:
    """Raises ModuleNotFoundError where nolds is missing."""
    package = importlib.util.find_spec("nolds")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("nolds")
    path = Path(package.origin).with_name("measures.py")
    spec = importlib.util.spec_from_file_location("nolds_measures", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
