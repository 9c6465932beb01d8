"""The privacy accountant: an exact ledger that refuses over-spending before any noise is drawn.

Pure and zCDP losses add up under composition, adaptively chosen releases included (Bun & Steinke,
2016, lemma 2.3), so the ledger is a sum of exact fractions. Spending has two steps: ``reserve``
takes the amount out of what is left or raises; ``commit`` writes it into the ledger for good. A
release commits before it draws its noise: if it then fails, budget is lost but never privacy.
"""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from probkit.errors import CheckpointError, ConfigurationError, message
from probkit.privacy.budget import (
    Amount,
    Budget,
    Relation,
    as_amount,
    check_delta,
    check_relation,
    zcdp_of_approximate,
)
from probkit.privacy.errors import BudgetExceededError, NotPrivateWarning, PrivacyError

__all__ = ["Entry", "PrivacyAccountant", "Reservation"]

_FORMAT = 1
_HARDLY_ANY = 20
"""epsilon above which a guarantee is one in name only"""


@dataclass(frozen=True)
class Entry:
    """One line of the ledger: what was released, and its exact cost in the ledger's currency."""

    what: str
    amount: Fraction


class Reservation:
    """An amount set aside; ``commit`` spends it, ``cancel`` gives it back."""

    def __init__(self, accountant: PrivacyAccountant, entry: Entry) -> None:
        self._accountant = accountant
        self._open = True
        self.entry = entry

    @property
    def budget(self) -> Budget:
        """What was reserved."""
        return Budget(self._accountant.kind, self.entry.amount)

    def commit(self) -> None:
        """Spend it. Raises PrivacyError if it was committed or cancelled before."""
        self._settle(self.entry)

    def cancel(self) -> None:
        """Give it back; allowed only as long as no noise was drawn with it."""
        self._settle(None)

    def _settle(self, entry: Entry | None) -> None:
        if not self._open:
            raise PrivacyError(message("A reservation can be settled once", where=self.entry.what))
        self._open = False
        self._accountant._settle(self.entry.amount, entry)


class PrivacyAccountant:
    """What may be spent on one private data set, and what was.

    Args:
        epsilon: alone: pure epsilon-DP in all. With ``delta``: (epsilon, delta)-DP in all. Above 20
            there is a ``NotPrivateWarning``.
        delta: in (0, 1), for approximate DP; kept as zCDP.
        rho: rho-zCDP in all.
        relation: "replace" (default) or "add_remove"; every release must declare the same.

    Raises:
        ConfigurationError: contradicting, missing or impossible budgets; unknown relation.
        DtypeError: a budget that is not a number.

    Example:
        >>> accountant = PrivacyAccountant(epsilon=1.0)
        >>> accountant.reserve("a histogram", 0.25).commit()
        >>> float(accountant.remaining)
        0.75
        >>> accountant.reserve("too much", 0.8)
        Traceback (most recent call last):
        ...
        probkit.privacy.errors.BudgetExceededError: The budget does not allow this release ...
    """

    kind: Any

    def __init__(
        self,
        *,
        epsilon: Amount | None = None,
        delta: float | None = None,
        rho: Amount | None = None,
        relation: Relation = "replace",
    ) -> None:
        self.relation = check_relation(relation)
        if (epsilon is None) == (rho is None) or (rho is not None and delta is not None):
            raise ConfigurationError(
                message(
                    "Give one kind of budget",
                    where="epsilon, delta, rho",
                    got=(epsilon, delta, rho),
                    expected="epsilon, or epsilon and delta, or rho",
                )
            )
        self.epsilon = None if epsilon is None else as_amount(epsilon, "epsilon")
        self.delta = None if delta is None else check_delta(delta)
        if rho is not None:
            self.kind, self.total = "zcdp", as_amount(rho, "rho")
        elif delta is None:
            assert self.epsilon is not None
            self.kind, self.total = "pure", self.epsilon
        else:
            assert self.epsilon is not None
            self.kind, self.total = "zcdp", zcdp_of_approximate(self.epsilon, delta)
        if self.epsilon is not None and self.epsilon > _HARDLY_ANY:
            size = float(self.epsilon)
            warnings.warn(
                f"epsilon = {size:g} protects hardly anything: one record may change the odds of "
                f"any conclusion by a factor of exp({size:g}).",
                NotPrivateWarning,
                stacklevel=2,
            )
        self._entries: list[Entry] = []
        self._reserved = Fraction(0)
        self._lock = threading.Lock()

    @property
    def ledger(self) -> tuple[Entry, ...]:
        """All that was spent, in order."""
        return tuple(self._entries)

    @property
    def spent(self) -> Fraction:
        """Sum of the ledger, exact."""
        return sum((entry.amount for entry in self._entries), Fraction(0))

    @property
    def remaining(self) -> Fraction:
        """Total less what is spent or reserved, exact."""
        return self.total - self.spent - self._reserved

    @property
    def budget(self) -> Budget:
        """What remains, to plan with: for ``recommend`` and ``Sketch.predicted_sd``."""
        return Budget(self.kind, self.remaining)

    def reserve(self, what: str, amount: Amount | None = None) -> Reservation:
        """Set an amount aside, or raise with the ledger unchanged.

        Args:
            what: description of the release.
            amount: epsilon (pure) or rho (zCDP, (epsilon, delta)); None for all that remains.

        Raises:
            BudgetExceededError: less than that is left.
            ConfigurationError: an amount that is not positive.
        """
        with self._lock:
            left = self.remaining
            wanted = left if amount is None else as_amount(amount, "amount")
            if wanted > left or wanted <= 0:
                raise BudgetExceededError(
                    message(
                        "The budget does not allow this release",
                        where=what,
                        got=f"{float(wanted):.6g} wanted, {float(left):.6g} left",
                        remedy="answer from the releases that exist: querying them is free",
                    )
                )
            self._reserved += wanted
        return Reservation(self, Entry(what, wanted))

    def disjoint(
        self, groups: Sequence[str], amount: Amount | None = None
    ) -> dict[str, PrivacyAccountant]:
        """Accountants for disjoint groups of records, each with the whole amount.

        A record belongs to one group and stays there, so the amount is charged once (parallel
        composition). Under "replace" a record could move from one group to another, which changes
        two groups: not allowed.

        Args:
            groups: different names; that the records are disjoint is the caller's declaration.
            amount: charged once; None for all that remains.

        Raises:
            PrivacyError: the relation is "replace".
            ConfigurationError: fewer than two names, or a name twice.
            BudgetExceededError: less than that is left.
        """
        if self.relation != "add_remove":
            raise PrivacyError(
                message(
                    "Parallel composition needs the relation add_remove",
                    where="relation",
                    got=self.relation,
                    remedy="a replaced record may change its group: split the budget instead",
                )
            )
        if len(groups) < 2 or len(set(groups)) != len(groups):
            raise ConfigurationError(
                message("Groups need two different names or more", where="groups", got=groups)
            )
        reservation = self.reserve("disjoint groups " + ", ".join(groups), amount)
        reservation.commit()
        name = "epsilon" if self.kind == "pure" else "rho"
        limits: dict[str, Any] = {name: reservation.entry.amount, "relation": self.relation}
        return {group: PrivacyAccountant(**limits) for group in groups}

    def save(self, path: str | Path) -> Path:
        """Write budget and ledger as JSON, reserved amounts counting as spent."""
        entries = [[entry.what, str(entry.amount)] for entry in self._entries]
        if self._reserved:
            entries.append(["reserved", str(self._reserved)])
        record = {
            "format": _FORMAT,
            "kind": self.kind,
            "total": str(self.total),
            "epsilon": None if self.epsilon is None else str(self.epsilon),
            "delta": self.delta,
            "relation": self.relation,
            "entries": entries,
        }
        path = Path(path)
        temporary = path.with_name(path.name + ".part")
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)
        return path

    @classmethod
    def load(cls, path: str | Path) -> PrivacyAccountant:
        """Read budget and ledger back.

        Raises:
            CheckpointError: no such file, or not a ledger of this version.
        """
        try:
            record = json.loads(Path(path).read_text(encoding="utf-8"))
            if record["format"] != _FORMAT:
                raise ValueError(f"format {record['format']}, expected {_FORMAT}")
            if record["kind"] == "pure":
                accountant = cls(epsilon=Fraction(record["total"]), relation=record["relation"])
            else:
                accountant = cls(rho=Fraction(record["total"]), relation=record["relation"])
            accountant.epsilon = record["epsilon"] and Fraction(record["epsilon"])
            accountant.delta = record["delta"]
            entries = [Entry(str(what), Fraction(amount)) for what, amount in record["entries"]]
        except (
            OSError,
            ValueError,
            LookupError,
            TypeError,
            ArithmeticError,
            RecursionError,
        ) as error:
            raise CheckpointError(
                message("The ledger cannot be read", where=str(path), got=str(error))
            ) from error
        if any(entry.amount <= 0 for entry in entries):
            raise CheckpointError(message("The ledger has a negative entry", where=str(path)))
        accountant._entries = entries
        if accountant.remaining < 0:
            raise CheckpointError(message("The ledger is overspent", where=str(path)))
        return accountant

    def _settle(self, amount: Fraction, entry: Entry | None) -> None:
        with self._lock:
            self._reserved -= amount
            if entry is not None:
                self._entries.append(entry)

    def __repr__(self) -> str:
        return (
            f"PrivacyAccountant({Budget(self.kind, self.total)}, relation={self.relation!r}, "
            f"spent {float(self.spent):.6g})"
        )

    def __reduce__(self) -> Any:
        raise PrivacyError(
            message(
                "An accountant cannot be copied: the copy could spend the same budget again",
                remedy="draw the noise where the accountant lives, and send sketches to it",
            )
        )
