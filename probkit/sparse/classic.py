"""Classic sparse Bayesian learning on the whole dictionary: a free variance for every atom.

The model that ignores the Kronecker structure of the support, fitted by EM with the constants of
the paper's comparison (start at 1, atoms below 1e-3 of the largest dropped, 150 steps): a problem
with a single factor, the dictionary itself. That is formed, which a byte budget guards. A step is
M^2 N operations for M measurements and N atoms.
Source: Tipping, JMLR 1 (2001); Wipf & Rao, IEEE TSP 52 (2004).
"""

from __future__ import annotations

import math
from functools import reduce

import torch
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.sparse.problem import Problem

__all__ = ["flat_problem", "kronecker_dictionary"]


def kronecker_dictionary(factors: list[Tensor], max_bytes: float) -> Tensor:
    """The dense dictionary (B, M, N).

    Raises:
        ConfigurationError: it would take more than ``max_bytes``.
    """
    b = max(a.shape[0] for a in factors)
    entries = b * math.prod(a.shape[-1] * a.shape[-2] for a in factors)
    size = entries * factors[0].element_size()
    if size > max_bytes:
        raise ConfigurationError(
            message(
                "The dense dictionary does not fit into the byte budget",
                where="dictionaries",
                got=f"{size / 1e9:.3g} GB",
                expected=f"<= {max_bytes / 1e9:.3g} GB",
                remedy="use a Kronecker method, slices of the problem, or a larger max_bytes",
            )
        )
    expanded = [a.expand(b, -1, -1) for a in factors]
    return torch.stack([reduce(torch.kron, [a[i] for a in expanded]) for i in range(b)])


def flat_problem(problem: Problem, max_bytes: float) -> Problem:
    """The same problem with its dictionary as the only factor."""
    dictionary = kronecker_dictionary(problem.factors, max_bytes)
    return Problem([dictionary], problem.y.flatten(2), problem.noise)
