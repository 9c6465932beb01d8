"""All rows of the inference engines; importing this module registers them.

Every other module of this package that defines rows is found here by itself, so that adding a row
touches one file.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

_NOT_ROWS = ("rows", "models", "numpyro_models", "feature_models")

for _module in sorted(m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)])):
    # a job runs in a process of its own and is no part of the table
    if _module not in _NOT_ROWS and not _module.endswith("_job"):
        importlib.import_module(f"benchmarks.engines.{_module}")
