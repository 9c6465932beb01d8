"""The private state of a data structure: built in parts, merged, released once.

    sketch = PrivateKDE(dim=2, bandwidth=0.5)      # public choices only
    sketch.update(X)                               # as often as there are chunks
    sketch.merge(other)                            # parts built elsewhere, bit for bit, once each
    release = sketch.release(accountant)           # noise is drawn here, once
    release.query(Y)                               # free, for ever

Everything is checked before the budget is reserved, and the budget is committed before noise is
drawn, so that an error leaves the ledger untouched and no noise-free number ever leaves.
"""

from __future__ import annotations

import uuid
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor

from probkit.errors import ConfigurationError, DataError, ShapeError, message
from probkit.privacy.accountant import PrivacyAccountant
from probkit.privacy.budget import Amount, Budget, Relation, check_relation
from probkit.privacy.continuous import knorm_noise
from probkit.privacy.entropy import Entropy, OSEntropy, TestingEntropy
from probkit.privacy.errors import (
    AccuracyWarning,
    NotPrivateWarning,
    PrivacyError,
    PrivateDataError,
)
from probkit.privacy.mechanism import Noise, plan_noise
from probkit.privacy.opendp_noise import opendp_noise
from probkit.similarity.design import Design, first_difference
from probkit.similarity.release import Release
from probkit.similarity.validation import as_points, check_finite, count_owners
from probkit.validation import as_real, check_whole

__all__ = ["Sketch"]

_BLOCK = 1024
_MAX_SUM = 2**62


class Sketch:
    """Base of all private data structures: the state, and its one life cycle.

    Args:
        design: the public part.
        relation: "replace" (n is public) or "add_remove" (n is private).
        max_rows_per_user: rows that are protected together; 1 protects single rows.
        on_bad: "error", or "drop" for rows with NaN (relation "add_remove" only, since dropping
            changes n by the data).

    Attributes:
        state: int64, PRIVATE.
        count: number of records so far; PRIVATE under "add_remove".
        released: whether ``release`` was called.
        merged: whether another sketch took the records over; this one has no further use then.
    """

    def __init__(
        self,
        design: Design,
        *,
        relation: Relation = "replace",
        max_rows_per_user: int = 1,
        on_bad: Literal["error", "drop"] = "error",
    ) -> None:
        self.design = design
        self.relation = check_relation(relation)
        self.max_rows_per_user = check_whole("max_rows_per_user", max_rows_per_user, 1, 2**20)
        if on_bad not in ("error", "drop") or (on_bad == "drop" and relation == "replace"):
            raise ConfigurationError(
                message(
                    "Dropping rows makes n depend on the data",
                    where="on_bad, relation",
                    got=(on_bad, relation),
                    expected='on_bad="error", or "drop" with relation "add_remove"',
                )
            )
        self.on_bad = on_bad
        self.state = torch.zeros(design.state_size, dtype=torch.int64)
        self.count = 0
        self.released = False
        self.merged = False
        self._parts: frozenset[str] = frozenset()
        self._users: Counter[Any] = Counter()

    def update(
        self, records: Any, labels: Any = None, *, users: Sequence[Any] | None = None
    ) -> Self:
        """Add records; values outside the domain are clipped, and nothing is reported.

        Args:
            records: (B, d) float32 or float64.
            labels: (B,) class labels, for structures that have classes.
            users: (B,) who owns each row, a list, an array, a column or a tensor of ids that
                compare as equal; required if rows of one user are protected together.

        Raises:
            PrivacyError: the sketch was released, or merged into another.
            DtypeError, ShapeError: records, labels or users of another kind.
            PrivateDataError: NaN or infinite rows, an id that is missing (None, NaN, NaT) or cannot
                be counted, or a user with too many rows.
            DataError: so many records that sums could overflow.
        """
        self._require_open("update")
        rows = as_points(records, self.design.dim, "records")
        classes = self._classes(labels, len(rows))
        owners = self._owners(users, len(rows))
        rows, kept = check_finite(rows, drop=self.on_bad == "drop", name="records")
        if classes is not None and kept is not None:
            classes = classes[kept.cpu()]
        if (self.count + len(rows)) * self.design.largest >= _MAX_SUM:
            raise DataError(message("So many records could overflow", got=self.count + len(rows)))
        total = torch.zeros_like(self.state)
        for start in range(0, len(rows), _BLOCK):
            part = slice(start, start + _BLOCK)
            own = None if classes is None else classes[part]
            total += self.design.contributions(rows[part], own).cpu()
        # a name that copies keep: copies of an empty sketch are parts of their own, later ones not
        self._parts = self._parts or frozenset({uuid.uuid4().hex})
        self.state += total
        self.count += len(rows)
        self._users = owners
        return self

    def merge(self, other: Sketch) -> Self:
        """Add the records of a sketch of the same public choices; exact in any order.

        The other sketch is used up: a record that counted twice would move the state twice as far
        as the noise allows for, and the release would not keep what it states.

        Raises:
            PrivacyError: one of the two was released or merged into another, or both hold the same
                records: a sketch and itself, its copy, or a part that is in already.
            ConfigurationError: a public choice differs; names it. Parts of seed None have seeds of
                their own.
            PrivateDataError: a user has too many rows in the two together.
        """
        self._require_open("merge")
        other._require_open("merge")
        if other is self or self._parts & other._parts:
            raise PrivacyError(
                message(
                    "Both sketches hold the same records",
                    where="other",
                    remedy="merge every part once; records that count twice break the privacy "
                    "that the release states",
                )
            )
        mine, theirs = self._choices(), other._choices()
        if mine != theirs:
            field, expected, got = first_difference(mine, theirs)
            raise ConfigurationError(
                message(
                    "Sketches of different public choices cannot be merged",
                    where=field,
                    got=str(got)[:80],
                    expected=str(expected)[:80],
                )
            )
        for name, tensor in self.design.tensors().items():
            if not torch.equal(tensor, other.design.tensors()[name]):
                raise ConfigurationError(message("Sketches differ", where=name))
        owners = self._users + other._users
        self._check_owners(owners)
        if (self.count + other.count) * self.design.largest >= _MAX_SUM:
            raise DataError(message("So many records could overflow", got="two sketches"))
        self.state = self.state + other.state
        self.count += other.count
        self._users = owners
        self._parts |= other._parts
        other.merged = True
        return self

    def release(
        self,
        accountant: PrivacyAccountant,
        amount: Amount | None = None,
        *,
        backend: Literal["exact", "opendp"] = "exact",
        insecure_float_noise: bool = False,
        testing_seed: int | None = None,
    ) -> Release:
        """Draw the noise, once, and return what may be published.

        Privacy: discrete Laplace noise (pure budgets) or discrete Gaussian noise (zCDP) on an
        integer statistic, whose change by one record the design bounds (its module has the
        proof), with the scales of ``privacy.mechanism``; all else is post-processing.

        Args:
            accountant: pays; its relation must be this sketch's.
            amount: epsilon of a pure accountant, rho of any other; None for all that remains.
            backend: "exact" (our integer samplers) or "opendp".
            insecure_float_noise: K-norm noise in floating point, under pure budgets; 10 to 15 %
                (pairs) or more less noise, open to attacks on low-order bits.
            testing_seed: reproducible noise; the result is marked NOT PRIVATE.

        Raises:
            PrivacyError: a second release of the same state, a sketch that was merged into
                another, or another relation.
            BudgetExceededError: the accountant does not allow it; nothing was spent.
            ConfigurationError: no records, or a budget too small for exact noise.
        """
        self._require_open("release")
        self._check_release(accountant, backend, insecure_float_noise, testing_seed)
        reservation = accountant.reserve(f"{self.design.kind} sketch", amount)
        try:
            noise = self.plan(reservation.budget, insecure_float_noise=insecure_float_noise)
            self._warn(noise, accountant)
            statistic = self.design.statistic(self.state, self.count, self.relation)
        except BaseException:
            reservation.cancel()
            raise
        entropy = OSEntropy() if testing_seed is None else TestingEntropy(testing_seed)
        self.released = True
        reservation.commit()
        return Release(
            design=self.design,
            relation=self.relation,
            budget=reservation.budget,
            noise=noise,
            values=_noisy(statistic, noise, backend, entropy),
            count=self.count if self.relation == "replace" else None,
            max_rows_per_user=self.max_rows_per_user,
            private=entropy.private,
            notes={"backend": "opendp" if backend == "opendp" else "exact"},
        )

    def plan(self, budget: Budget, *, insecure_float_noise: bool = False) -> Noise:
        """The mechanism that ``release`` would use for a budget; looks at no record."""
        blocks = self.design.blocks(self.relation, self.max_rows_per_user)
        return plan_noise(blocks, budget, continuous=insecure_float_noise)

    def predicted_sd(self, budget: Budget) -> float:
        """Error by noise of a typical sum for a budget; looks at no record but a public n."""
        count = 1 if self.relation == "replace" else None
        return self.design.predicted_sd(self.plan(budget).variance(), count)

    def save(self, path: Any, *, allow_private: bool = False) -> None:
        """Write the raw state, which is PRIVATE; refused unless ``allow_private``.

        Raises:
            PrivacyError: without ``allow_private=True``.
        """
        if not allow_private:
            raise PrivacyError(
                message(
                    "A raw sketch is private data",
                    remedy="save what release() returns; to store the raw state as carefully as "
                    "the records themselves, pass allow_private=True",
                )
            )
        from probkit.similarity.files import save_raw

        save_raw(self, path)

    def _choices(self) -> dict[str, Any]:
        return {
            **self.design.spec(),
            "relation": self.relation,
            "max_rows_per_user": self.max_rows_per_user,
            "on_bad": self.on_bad,
        }

    def _require_open(self, action: str) -> None:
        if self.merged:
            raise PrivacyError(
                message(
                    f"{action} after merge into another sketch",
                    remedy="go on with the sketch that took the records over",
                )
            )
        if self.released:
            raise PrivacyError(
                message(
                    f"{action} after release",
                    remedy="query what release() returned; a second look at the same records "
                    "needs a sketch and budget of its own",
                )
            )

    def _check_release(
        self, accountant: PrivacyAccountant, backend: str, continuous: bool, seed: int | None
    ) -> None:
        if accountant.relation != self.relation:
            raise PrivacyError(
                message(
                    "Accountant and sketch assume different neighbours",
                    where="relation",
                    got=accountant.relation,
                    expected=self.relation,
                )
            )
        if self.relation == "replace" and self.count < 2:
            raise ConfigurationError(
                message("A release needs records", got=self.count, expected="at least 2")
            )
        if backend not in ("exact", "opendp") or (backend == "opendp" and continuous):
            raise ConfigurationError(message("No such backend", where="backend", got=backend))
        if continuous:
            warnings.warn(
                "Floating-point noise: low-order bits of the release may betray records.",
                NotPrivateWarning,
                stacklevel=3,
            )
        if seed is not None:
            warnings.warn(
                "Seeded noise: this release is marked NOT PRIVATE.", NotPrivateWarning, stacklevel=3
            )

    def _warn(self, noise: Noise, accountant: PrivacyAccountant) -> None:
        """Only public numbers decide: the noise scales, delta, and n where it is public."""
        if self.relation != "replace":
            return
        if accountant.delta is not None and accountant.delta >= 1 / self.count:
            warnings.warn(
                f"delta = {accountant.delta:g} is not below 1/n: whole records may be published.",
                NotPrivateWarning,
                stacklevel=4,
            )
        better = self.design.advice(noise, self.count)
        if better is not None:
            warnings.warn(better, AccuracyWarning, stacklevel=4)
        error = self.design.predicted_sd(noise.variance(), self.count) / self.count
        share = error / self.design.scale_of_answers()
        if share > 0.5:
            advice = "a (epsilon, delta) budget" if noise.kind != "gaussian" else "more budget"
            warnings.warn(
                f"The noise is {share:.2g} of the largest possible answer; use {advice}.",
                AccuracyWarning,
                stacklevel=4,
            )

    def _classes(self, labels: Any, length: int) -> Tensor | None:
        if (labels is not None) != bool(self.design.num_classes):
            raise ConfigurationError(
                message("Labels go with structures that have classes", where="labels")
            )
        if labels is None:
            return None
        classes = as_real(labels, "labels")
        if classes.shape != (length,):
            raise ShapeError(
                message("One label a record", where="labels", got=classes.shape, expected=length)
            )
        return classes

    def _owners(self, users: Sequence[Any] | None, length: int) -> Counter[Any]:
        if (users is not None) != (self.max_rows_per_user > 1):
            raise ConfigurationError(
                message(
                    "Rows of users need a limit, and a limit needs the rows' users",
                    where="users, max_rows_per_user",
                    got=(users is not None, self.max_rows_per_user),
                )
            )
        if users is None:
            return self._users
        owners = self._users + count_owners(users, length)
        self._check_owners(owners)
        return owners

    def _check_owners(self, owners: Counter[Any]) -> None:
        if owners and max(owners.values()) > self.max_rows_per_user:
            raise PrivateDataError(
                message(
                    "A user has more rows than are protected",
                    where="max_rows_per_user",
                    expected=f"at most {self.max_rows_per_user}",
                    remedy="keep that many rows of every user, by a rule of each user alone",
                )
            )


def _noisy(statistic: Tensor, noise: Noise, backend: str, entropy: Entropy) -> Tensor:
    if noise.kind == "knorm":
        return knorm_noise(statistic, noise, entropy)
    if backend == "opendp":
        return noise.apply(statistic, entropy, draw=opendp_noise)
    return noise.apply(statistic, entropy)
