"""Errors and warnings of private releases."""

from __future__ import annotations

from probkit.errors import DataError, ProbkitError, ProbkitWarning

__all__ = [
    "AccuracyWarning",
    "BudgetExceededError",
    "NotPrivateWarning",
    "PrivacyError",
    "PrivateDataError",
    "ReleaseFileError",
]


class PrivacyError(ProbkitError, RuntimeError):
    """An action would break, or could not keep, a privacy guarantee."""


class BudgetExceededError(PrivacyError):
    """More privacy budget was asked for than is left; nothing was spent or released."""


class PrivateDataError(PrivacyError, DataError):
    """Private records cannot be used as they are. The message itself is not private."""


class ReleaseFileError(ProbkitError, ValueError):
    """A release file is malformed, truncated, altered, or of a newer version."""


class AccuracyWarning(ProbkitWarning):
    """The noise needed is so large that the answers will be of little use."""


class NotPrivateWarning(ProbkitWarning):
    """The result lacks the guarantee that it claims, or has one that protects hardly anything."""
