"""TensorLy's masked Tucker and CP decompositions of a gridded array, as their users run them."""

from __future__ import annotations

import numpy as np

__all__ = ["masked_cp", "masked_tucker"]


def masked_tucker(
    values: np.ndarray, observed: np.ndarray, rank: tuple[int, ...], *, num_iterations: int = 50
) -> np.ndarray:
    """The completed array: ``tensorly.decomposition.tucker`` with a mask, its defaults else.

    Args:
        values: array, whatever at the missing cells; observed: mask of the same shape.
        rank: one rank a mode.
        num_iterations: at most so many sweeps.
    """
    import tensorly
    from tensorly.decomposition import tucker

    start, mean = _filled(values, observed)
    fit = tucker(
        tensorly.tensor(start),
        rank=list(rank),
        n_iter_max=num_iterations,
        mask=tensorly.tensor(observed.astype(float)),
        init="svd",
        random_state=0,
    )
    return np.asarray(tensorly.tucker_to_tensor(fit)) + mean


def masked_cp(
    values: np.ndarray, observed: np.ndarray, rank: int, *, num_iterations: int = 100
) -> np.ndarray:
    """The completed array by ``tensorly.decomposition.parafac`` with a mask."""
    import tensorly
    from tensorly.decomposition import parafac

    start, mean = _filled(values, observed)
    fit = parafac(
        tensorly.tensor(start),
        rank=rank,
        n_iter_max=num_iterations,
        mask=tensorly.tensor(observed.astype(float)),
        init="svd",
        tol=1e-8,
        random_state=0,
    )
    return np.asarray(tensorly.cp_to_tensor(fit)) + mean


def _filled(values: np.ndarray, observed: np.ndarray) -> tuple[np.ndarray, float]:
    """Centred on the observed mean, so that missing cells start at it."""
    mean = float(values[observed].mean())
    return np.where(observed, values - mean, 0.0), mean
