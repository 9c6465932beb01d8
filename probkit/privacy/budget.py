"""Budgets and what they are worth in one another.

- pure DP: for neighbouring data P(release in S) <= exp(epsilon) P'(release in S);
- zCDP: Renyi divergence of order a at most rho a for all a > 1 (Bun & Steinke, 2016);
- (epsilon, delta)-DP, kept as the largest rho that implies it: rho-zCDP gives
  delta(a) = exp((a-1)(a rho - epsilon)) (1 - 1/a)^a / (a - 1) for *every* a > 1
  (Canonne, Kamath, Steinke, arXiv 2004.00010, corollary 13). A coarse search over a can therefore
  only understate rho, which is the safe side.

The neighbouring relation says which data must not be told apart: "replace" (same number of
records, which is public; one record changed to anything) or "add_remove" (one record more or
less; the number itself is private). A record is one row, or all rows of one user.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from numbers import Integral, Rational, Real
from typing import Any, Literal

import numpy as np

from probkit.errors import ConfigurationError, DtypeError, message
from probkit.validation import unknown

__all__ = [
    "RELATIONS",
    "Amount",
    "Budget",
    "Relation",
    "as_amount",
    "check_delta",
    "check_relation",
    "delta_of_zcdp",
    "zcdp_of_approximate",
]

Relation = Literal["replace", "add_remove"]
RELATIONS: tuple[Relation, ...] = ("replace", "add_remove")
Amount = float | int | str | Fraction


@dataclass(frozen=True)
class Budget:
    """An amount of privacy loss in one currency.

    Attributes:
        kind: "pure" (the amount is epsilon) or "zcdp" (the amount is rho).
        amount: exact.

    Example:
        >>> from fractions import Fraction
        >>> str(Budget("pure", Fraction(1, 2)))
        'epsilon = 0.5'
    """

    kind: Literal["pure", "zcdp"]
    amount: Fraction

    def __str__(self) -> str:
        symbol = "epsilon" if self.kind == "pure" else "rho"
        return f"{symbol} = {float(self.amount):.6g}"


def as_amount(value: Amount, name: str) -> Fraction:
    """An exact positive amount; a float counts as the decimal that it prints as, NumPy's too.

    Raises:
        DtypeError: not a number.
        ConfigurationError: not finite, beyond all floats, not positive, or text that is no number.

    Example:
        >>> sum(as_amount(0.1, "epsilon") for _ in range(10)) == 1
        True
    """
    if isinstance(value, bool) or not isinstance(value, Real | str):
        raise DtypeError(
            message("A budget must be a number", where=name, got=f"{type(value).__name__}")
        )
    if not isinstance(value, Rational | str) and not math.isfinite(value):
        raise ConfigurationError(message("A budget must be finite", where=name, got=value))
    try:
        exact = _exact(value)
        float(exact)  # scales of noise are computed in floats
    except (ValueError, ZeroDivisionError) as error:
        raise ConfigurationError(
            message(
                "A budget must be a number", where=name, got=repr(value), expected="1, 0.5 or 1/2"
            )
        ) from error
    except OverflowError as error:
        raise ConfigurationError(
            message("A budget must be finite", where=name, got="a number beyond all floats")
        ) from error
    if exact <= 0:
        raise ConfigurationError(
            message("A budget must be positive", where=name, got=value, expected="> 0")
        )
    return exact


def _exact(value: Any) -> Fraction:
    if isinstance(value, Integral):  # NumPy's are no numbers to Fraction
        return Fraction(int(value))
    if isinstance(value, str | Rational):
        return Fraction(value)
    narrow = isinstance(value, np.floating) and not isinstance(value, float)
    return Fraction(str(value) if narrow else repr(float(value)))


def check_delta(delta: Any) -> float:
    """The delta of an (epsilon, delta) budget.

    Raises:
        DtypeError: not a number.
        ConfigurationError: not in (0, 1).

    Example:
        >>> check_delta(Fraction(1, 2))
        0.5
    """
    if isinstance(delta, bool) or not isinstance(delta, Real):
        raise DtypeError(
            message(
                "delta must be a number",
                where="delta",
                got=repr(delta),
                expected="strictly between 0 and 1",
            )
        )
    try:
        value = float(delta)
    except OverflowError:
        value = math.inf
    if not 0 < value < 1:
        raise ConfigurationError(
            message("delta must lie strictly between 0 and 1", where="delta", got=delta)
        )
    return value


def check_relation(relation: str) -> Relation:
    """The relation, if it is one of the two.

    Raises:
        ConfigurationError: any other name.
    """
    for known in RELATIONS:
        if relation == known:
            return known
    raise unknown("neighbouring relation", "relation", relation, RELATIONS)


def delta_of_zcdp(rho: float, epsilon: float) -> float:
    """A delta such that every rho-zCDP release is (epsilon, delta)-DP.

    Example:
        >>> delta_of_zcdp(0.024356, 1.0) < 1.001e-6
        True
    """
    return min(1.0, math.exp(_log_delta(rho, epsilon)))


def zcdp_of_approximate(epsilon: Amount, delta: float) -> Fraction:
    """The rho (rounded down) whose zCDP guarantees (epsilon, delta)-DP.

    Raises:
        ConfigurationError: epsilon not positive, or delta not in (0, 1).
        DtypeError: one of the two is not a number.

    Example:
        >>> round(float(zcdp_of_approximate(1, 1e-6)), 6)
        0.024356
    """
    eps = float(as_amount(epsilon, "epsilon"))
    delta = check_delta(delta)
    rho = _rho_of(eps, delta)
    if rho <= 0:
        raise ConfigurationError(
            message("No zCDP budget is this small", where="epsilon, delta", got=(eps, delta))
        )
    return rho


@lru_cache(maxsize=256)
def _rho_of(eps: float, delta: float) -> Fraction:
    """By bisection; a tenth of a second, and the same few budgets come again and again."""
    low, high = 0.0, eps + 10.0  # rho = epsilon gives no delta < 1/2 for any use
    target = math.log(delta)
    for _ in range(200):
        middle = (low + high) / 2
        if _log_delta(middle, eps) <= target:
            low = middle
        else:
            high = middle
    return Fraction(low * (1 - 1e-9))


def _log_delta(rho: float, epsilon: float) -> float:
    above = np.logspace(-6, 6, 20001)  # a - 1
    a = 1 + above
    with np.errstate(over="ignore"):
        log_delta = above * (a * rho - epsilon) + a * np.log1p(-1 / a) - np.log(above)
    return float(log_delta.min())
