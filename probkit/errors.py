"""Errors and warnings: each says what happened, where, and what to do about it.

Messages are built by :func:`message` so that they always carry the same four parts: what
happened, which argument or site it concerns, what was got and expected, and the remedy.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "ConfigurationError",
    "DataError",
    "DependencyError",
    "DistributedError",
    "DtypeError",
    "ExtrapolationWarning",
    "FitWarning",
    "NotPositiveDefiniteError",
    "NumericalError",
    "PrecisionWarning",
    "ProbkitError",
    "ProbkitWarning",
    "ShapeError",
    "message",
]


class ProbkitError(Exception):
    """Base class of every error that probkit raises on purpose."""


class ConfigurationError(ProbkitError, ValueError):
    """A setting is impossible or contradicts another one."""


class DataError(ProbkitError, ValueError):
    """The data given by the user cannot be used as they are."""


class ShapeError(DataError):
    """Two arguments disagree in shape."""


class DtypeError(ProbkitError, TypeError):
    """An argument has a type or dtype that has no meaning here."""


class DependencyError(ProbkitError, ImportError):
    """An optional package is needed and not installed; the message names the extra."""


class CheckpointError(ProbkitError):
    """A saved result or checkpoint cannot be read, or belongs to another fit."""


class DistributedError(ProbkitError, RuntimeError):
    """A process of a joint computation is gone, does not answer, or computes something else."""


class NumericalError(ProbkitError, ArithmeticError):
    """A computation broke down; the message says where and why."""


class NotPositiveDefiniteError(NumericalError):
    """A matrix that must be positive definite is not."""


class ProbkitWarning(UserWarning):
    """Base class of every warning that probkit emits."""


class PrecisionWarning(ProbkitWarning):
    """Less precision than float64, or digits lost in a computation."""


class FitWarning(ProbkitWarning):
    """Data or a fit look suspicious but can be used."""


class ExtrapolationWarning(ProbkitWarning):
    """A prediction was asked far from the data."""


def message(
    what: str,
    *,
    where: str | None = None,
    got: object | None = None,
    expected: object | None = None,
    causes: tuple[str, ...] = (),
    remedy: str | None = None,
) -> str:
    """Build an error message with its parts in a fixed order.

    Args:
        what: one sentence on what happened.
        where: the argument, site or file concerned.
        got: the offending value, shape or type.
        expected: what would have been accepted.
        causes: the likely causes, the most likely first.
        remedy: what the user should do.

    Example:
        >>> print(message("rank is too small", where="rank", got=0, expected=">= 1"))
        rank is too small (rank: got 0, expected >= 1).
    """
    parts = []
    if got is not None:
        parts.append(f"got {got}")
    if expected is not None:
        parts.append(f"expected {expected}")
    detail = ", ".join(parts)
    if where is not None:
        detail = f"{where}: {detail}" if detail else where
    text = what.rstrip(".") + (f" ({detail})" if detail else "") + "."
    if causes:
        text += " Likely causes: " + "; ".join(causes) + "."
    if remedy:
        text += " Remedy: " + remedy.rstrip(".") + "."
    return text
