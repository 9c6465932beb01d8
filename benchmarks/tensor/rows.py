"""All rows of the functional Tucker family; importing this module registers them."""

from benchmarks.tensor import (
    accuracy,
    algebra,
    bad_input,
    calibration,
    hyperspectral,
    likelihoods,
    reliability,
    scale,
    selection,
    speed,
)

__all__ = [
    "accuracy",
    "algebra",
    "bad_input",
    "calibration",
    "hyperspectral",
    "likelihoods",
    "reliability",
    "scale",
    "selection",
    "speed",
]
