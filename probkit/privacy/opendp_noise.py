"""Noise from OpenDP's vetted samplers, as a named alternative to our own and as a test oracle.

Integers only (``T="i64"``: OpenDP's plain ``int`` is 32 bits wide and saturates). One draw costs 7
to 40 microseconds. Needs ``pip install "probkit[privacy]"``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from probkit.errors import DependencyError, message
from probkit.validation import check_choice

__all__ = ["opendp_noise"]


def opendp_noise(kind: str, scale: NDArray[np.int64]) -> NDArray[np.int64]:
    """Independent integer draws, "laplace" or "gaussian", one for every scale.

    Raises:
        DependencyError: OpenDP is not installed.
        ConfigurationError: another kind.
    """
    check_choice("noise", "kind", kind, ("laplace", "gaussian"))
    try:
        import opendp.prelude as dp
    except ImportError as error:
        raise DependencyError(
            message("This backend needs OpenDP", remedy='pip install "probkit[privacy]"')
        ) from error
    dp.enable_features("contrib")
    domain = dp.vector_domain(dp.atom_domain(T="i64"))
    out = np.empty(len(scale), dtype=np.int64)
    for one in np.unique(scale):
        places = np.flatnonzero(scale == one)
        if kind == "laplace":
            mechanism = dp.m.make_laplace(domain, dp.l1_distance(T="i64"), scale=float(one))
        else:
            mechanism = dp.m.make_gaussian(domain, dp.l2_distance(T="i64"), scale=float(one))
        out[places] = mechanism([0] * len(places))
    return out
