"""The settings of ``KroneckerSBL``, checked before anything is computed.

A setting that a method does not have is refused rather than ignored: a fit that ran with another
number than the one asked for looks like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.sparse.evidence import STARTS
from probkit.sparse.reference import REFERENCE_METHODS
from probkit.validation import as_real, check_choice, check_positive, check_whole

__all__ = ["METHODS", "check_factor_settings", "check_settings", "to_numbers"]

METHODS = ("evidence", "pattern_coupled", "rank1", *REFERENCE_METHODS)
_COUPLED = ("pattern_coupled", "paper_pattern_coupled")
_MOST_STEPS = 10**9


def check_settings(model: Any) -> None:
    """What can be judged without data.

    Raises:
        ConfigurationError: an impossible setting, or one that the method does not have.
    """
    check_choice("method", "method", model.method, METHODS)
    unknown = [s for s in model.starts if s not in STARTS]
    if unknown or not model.starts:
        raise ConfigurationError(
            message(
                "Unknown start",
                where="starts",
                got=list(model.starts),
                expected="some of " + ", ".join(STARTS),
            )
        )
    check_positive("tolerance", model.tolerance)
    check_positive("max_bytes", model.max_bytes)
    if model.max_steps is not None:
        check_whole("max_steps", model.max_steps, 1, _MOST_STEPS)
    if model.coupling is not None:
        _check_owner("coupling", model.coupling, model.method, _COUPLED)
        found = to_numbers("coupling", model.coupling)
        _check_range("coupling", found, "in [0, 1]", all(0 <= b <= 1 for b in found))
        if model.method == "paper_pattern_coupled" and len(found) > 1:
            raise ConfigurationError(
                message(
                    "The paper's method has one strength",
                    where="coupling",
                    got=found,
                    expected="one number",
                    remedy='"pattern_coupled" chooses among several',
                )
            )
    if model.drop_below is not None:
        shares = to_numbers("drop_below", model.drop_below)
        _check_range("drop_below", shares, "in [0, 1)", all(0 <= s < 1 for s in shares))
        if len(shares) > 1:
            _check_owner("drop_below", shares, model.method, REFERENCE_METHODS)
    absolute = to_numbers("drop_absolute", model.drop_absolute)
    _check_range("drop_absolute", absolute, ">= 0", len(absolute) == 1 and absolute[0] >= 0)
    if absolute != [0.0]:
        _check_owner("drop_absolute", model.drop_absolute, model.method, REFERENCE_METHODS)


def check_factor_settings(model: Any, num_factors: int) -> None:
    """What depends on the number of factors.

    Raises:
        ConfigurationError: a factor that is not there, or numbers for more or fewer factors.
    """
    if model.coupled is not None:
        _check_owner("coupled", model.coupled, model.method, ("pattern_coupled",))
        for k in model.coupled:
            check_whole("coupled", k, 0, num_factors - 1)
    if model.drop_below is not None:
        num = len(to_numbers("drop_below", model.drop_below))
        expected = 1 if model.method == "classic" else num_factors
        if num not in (1, expected):
            raise ConfigurationError(
                message(
                    "One number for all factors, or one for each",
                    where="drop_below",
                    got=f"{num} numbers",
                    expected=f"1 or {expected}",
                )
            )


def to_numbers(name: str, value: Any) -> list[float]:
    """One number or several as a list.

    Raises:
        DtypeError: no real numbers.
        ConfigurationError: none at all.

    Example:
        >>> to_numbers("coupling", 1), to_numbers("coupling", (0.0, 0.5))
        ([1.0], [0.0, 0.5])
    """
    many = isinstance(value, Tensor | Sequence)
    found: list[float] = as_real(value if many else [value], name).double().reshape(-1).tolist()
    _check_range(name, found, "a number", bool(found))
    return found


def _check_range(name: str, found: list[float], expected: str, holds: bool) -> None:
    if not holds:
        raise ConfigurationError(
            message("This setting is impossible", where=name, got=found, expected=expected)
        )


def _check_owner(name: str, value: Any, method: str, owners: tuple[str, ...]) -> None:
    if method not in owners:
        raise ConfigurationError(
            message(
                f"Method {method!r} has no such setting",
                where=name,
                got=value,
                expected="the default",
                remedy=f"leave it out, or use one of {', '.join(owners)}",
            )
        )
