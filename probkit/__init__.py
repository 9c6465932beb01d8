"""probkit: structured, fast and calibrated Bayesian models for Pyro and GPyTorch users."""

from __future__ import annotations

__version__ = "0.1.0"
