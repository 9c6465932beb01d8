"""Indian Pines (145 x 145 pixels, 200 bands) with half of the entries and a tenth of the bands out.

Loaded from the installed TensorLy package. Whole bands are held out first; of the entries in the
other bands a random half is held out. Values are scaled by their standard deviation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["Scene", "coordinates", "load_scene"]


class Scene(NamedTuple):
    """(rows, columns, bands) array and masks of what is observed and held out."""

    values: np.ndarray
    observed: np.ndarray
    held_entries: np.ndarray
    held_bands: np.ndarray


def load_scene(*, size: int | None = None, seed: int = 0) -> Scene:
    """The scene, or its first ``size`` rows and columns."""
    from tensorly.datasets import load_indian_pines

    values = np.asarray(load_indian_pines().tensor, dtype=float)
    values = values[:size, :size] / values.std()
    rng = np.random.default_rng(seed)
    num_bands = values.shape[2]
    bands = rng.permutation(num_bands)[: num_bands // 10]
    held_bands = np.zeros(values.shape, dtype=bool)
    held_bands[:, :, bands] = True
    held_entries = ~held_bands & (rng.random(values.shape) < 0.5)
    return Scene(values, ~held_bands & ~held_entries, held_entries, held_bands)


def coordinates(mask: np.ndarray) -> Tensor:
    """(N, 3) row, column and band numbers of the cells in a mask."""
    return torch.from_numpy(np.argwhere(mask).astype(float))
