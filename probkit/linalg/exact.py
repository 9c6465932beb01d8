"""Exact linear algebra in ``linear_operator`` and GPyTorch.

Above 800 rows upstream replaces solves by conjugate gradients with tolerance 1 and
log-determinants by a stochastic estimate, silently. Inside :func:`exact_linalg` it never does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from linear_operator import settings

from probkit.errors import ConfigurationError, message

__all__ = ["assert_exact", "exact_linalg", "is_exact"]

LARGE = 2**62


@contextmanager
def exact_linalg() -> Iterator[None]:
    """Use Cholesky factorisations at every size while the context is active.

    Example:
        >>> with exact_linalg():
        ...     is_exact(10_000)
        True
    """
    with ExitStack() as stack:
        stack.enter_context(settings.max_cholesky_size(LARGE))
        stack.enter_context(settings.fast_computations(False, False, False))
        yield


def is_exact(num_rows: int) -> bool:
    """Whether upstream would treat a matrix of this size exactly under the present settings."""
    if num_rows <= settings.max_cholesky_size.value():
        return True
    fast = settings.fast_computations
    return bool(fast.log_prob.off() and fast.solves.off() and fast.covar_root_decomposition.off())


def assert_exact(num_rows: int, *, where: str) -> None:
    """Refuse a stochastic log-determinant where an evidence value is about to be reported.

    Raises:
        ConfigurationError: upstream would estimate instead of compute.

    Example:
        >>> assert_exact(100, where="kernel matrix")
    """
    if not is_exact(num_rows):
        raise ConfigurationError(
            message(
                "The log-determinant would be a stochastic estimate",
                where=where,
                got=f"{num_rows} rows",
                expected=f"at most {settings.max_cholesky_size.value()}, or exact_linalg()",
                remedy="run it inside `with probkit.linalg.exact.exact_linalg():`",
            )
        )
