"""The ledger is exact, refuses over-spending, and cannot be copied or misread."""

from __future__ import annotations

import copy
import json
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from scipy.optimize import brentq

from probkit.errors import CheckpointError, ConfigurationError, DtypeError
from probkit.privacy import (
    BudgetExceededError,
    NotPrivateWarning,
    PrivacyAccountant,
    PrivacyError,
    delta_of_zcdp,
    zcdp_of_approximate,
)


def test_ten_tenths_are_the_whole_budget():
    accountant = PrivacyAccountant(epsilon=1)
    for _ in range(10):
        accountant.reserve("part", 0.1).commit()
    assert accountant.remaining == 0
    with pytest.raises(BudgetExceededError):
        accountant.reserve("one more", 1e-12)
    assert len(accountant.ledger) == 10


def test_overspending_leaves_the_ledger_unchanged():
    accountant = PrivacyAccountant(rho=0.5)
    accountant.reserve("first", 0.3).commit()
    with pytest.raises(BudgetExceededError, match=r"0\.2 left"):
        accountant.reserve("second", 0.3)
    assert [entry.amount for entry in accountant.ledger] == [Fraction(3, 10)]
    assert accountant.remaining == Fraction(1, 5)


def test_a_reservation_blocks_the_amount_until_it_is_settled_once():
    accountant = PrivacyAccountant(epsilon=1)
    reservation = accountant.reserve("draft", 0.8)
    with pytest.raises(BudgetExceededError):
        accountant.reserve("other", 0.3)
    reservation.cancel()
    assert accountant.remaining == 1 and accountant.ledger == ()
    with pytest.raises(PrivacyError, match="once"):
        reservation.commit()


@pytest.mark.parametrize(
    "budget",
    [
        {},
        {"epsilon": 0},
        {"epsilon": -1.0},
        {"epsilon": math.inf},
        {"epsilon": math.nan},
        {"epsilon": "many"},
        {"epsilon": 1, "rho": 1},
        {"rho": 1, "delta": 1e-6},
        {"delta": 1e-6},
        {"epsilon": 1, "delta": 0.0},
        {"epsilon": 1, "delta": 1.0},
        {"epsilon": 1, "relation": "swap"},
    ],
    ids=str,
)
def test_impossible_budgets_are_refused(budget):
    with pytest.raises(ConfigurationError):
        PrivacyAccountant(**budget)


@pytest.mark.parametrize("epsilon", [True, None, [1]])
def test_a_budget_is_a_number(epsilon):
    with pytest.raises((DtypeError, ConfigurationError)):
        PrivacyAccountant(epsilon=epsilon)


@pytest.mark.parametrize(
    ("given", "exact"),
    [
        (np.int64(1), Fraction(1)),
        (np.uint8(2), Fraction(2)),
        (np.float32(0.1), Fraction(1, 10)),
        (np.float16(0.1), Fraction(1, 10)),
        (np.float64(0.1), Fraction(1, 10)),
        (np.longdouble("0.5"), Fraction(1, 2)),
        (1e-7, Fraction(1, 10**7)),
        ("1/3", Fraction(1, 3)),
        (Fraction(2, 7), Fraction(2, 7)),
    ],
    ids=repr,
)
def test_a_budget_is_any_real_number_and_the_decimal_that_it_prints_as(given, exact):
    assert PrivacyAccountant(epsilon=given).total == PrivacyAccountant(rho=given).total == exact
    accountant = PrivacyAccountant(epsilon=20)
    accountant.reserve("part", given).commit()
    assert accountant.spent == exact


@pytest.mark.parametrize(
    "amount",
    ["1/0", "1e400", 10**400, np.float32("inf"), np.float32("nan")],
    ids=["ratio", "text", "integer", "infinity", "nan"],
)
def test_what_is_no_finite_number_is_refused(amount):
    with pytest.raises(ConfigurationError, match=r"epsilon: got"):
        PrivacyAccountant(epsilon=amount)


@pytest.mark.parametrize("delta", [np.float32(2**-20), np.float64(2**-20), Fraction(1, 2**20)])
def test_delta_is_any_real_number(delta, tmp_path):
    plain = PrivacyAccountant(epsilon=1, delta=2**-20)
    accountant = PrivacyAccountant(epsilon=1, delta=delta)
    assert accountant.total == plain.total and type(accountant.delta) is float
    assert PrivacyAccountant.load(accountant.save(tmp_path / "ledger")).delta == 2**-20


def test_a_delta_that_is_no_number_or_none_in_between_is_refused():
    for wrong in ("1e-6", True, 1j, [1e-6]):
        with pytest.raises(DtypeError, match="delta: got .* expected strictly between 0 and 1"):
            PrivacyAccountant(epsilon=1, delta=wrong)
    for wrong in (math.nan, -1, 2, 10**400, Fraction(1, 10**400), 1 - Fraction(1, 10**40)):
        with pytest.raises(ConfigurationError, match="delta: got"):
            PrivacyAccountant(epsilon=1, delta=wrong)


def test_a_budget_that_protects_hardly_anything_is_told_of():
    for large in ({"epsilon": 21}, {"epsilon": 1e6}, {"epsilon": 50, "delta": 1e-6}):
        with pytest.warns(NotPrivateWarning, match="hardly anything") as told:
            PrivacyAccountant(**large)
        assert len(told) == 1 and told[0].filename == __file__
    PrivacyAccountant(epsilon=20)  # warnings are errors here


def test_it_cannot_be_copied():
    accountant = PrivacyAccountant(epsilon=1)
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(PrivacyError, match="copied"):
            duplicate(accountant)


def test_disjoint_groups_are_charged_once_and_only_without_replacement():
    accountant = PrivacyAccountant(epsilon=1, relation="add_remove")
    parts = accountant.disjoint(["north", "south"], 0.4)
    assert accountant.spent == Fraction(2, 5)
    assert all(part.total == Fraction(2, 5) for part in parts.values())
    with pytest.raises(ConfigurationError, match="two different"):
        accountant.disjoint(["north", "north"], 0.1)
    with pytest.raises(PrivacyError, match="add_remove"):
        PrivacyAccountant(epsilon=1).disjoint(["north", "south"])


def test_ledger_survives_a_file_and_reserved_amounts_count_as_spent(tmp_path):
    accountant = PrivacyAccountant(epsilon=1, delta=1e-6)
    accountant.reserve("first", accountant.total / 3).commit()
    accountant.reserve("pending", accountant.total / 3)
    again = PrivacyAccountant.load(accountant.save(tmp_path / "ledger.json"))
    assert again.total == accountant.total and again.remaining == accountant.remaining
    assert (again.delta, again.epsilon, again.kind) == (1e-6, 1, "zcdp")


@pytest.mark.parametrize(
    "change", [{"format": 2}, {"entries": [["x", "-1"]]}, {"entries": [["x", "9"]]}]
)
def test_an_altered_ledger_is_refused(change, tmp_path):
    path = PrivacyAccountant(epsilon=1).save(tmp_path / "ledger.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError):
        PrivacyAccountant.load(path)


@pytest.mark.parametrize(("epsilon", "delta"), [(1.0, 1e-6), (0.5, 1e-6), (4.0, 1e-9), (0.1, 1e-5)])
def test_conversion_is_tight_and_never_optimistic(epsilon, delta):
    rho = float(zcdp_of_approximate(epsilon, delta))
    assert delta_of_zcdp(rho, epsilon) <= delta * (1 + 1e-6)
    # the optimal order by a fine search of its own
    log_a = np.linspace(-8, 12, 400_001)

    def excess(r):
        a = 1 + np.exp(log_a)
        return ((a - 1) * (a * r - epsilon) + a * np.log1p(-1 / a) - np.log(a - 1)).min() - np.log(
            delta
        )

    best = brentq(excess, 1e-9, epsilon)
    assert best * (1 - 1e-4) <= rho <= best
    # never below the truth: the Gaussian mechanism of this rho has exact delta (Balle & Wang)
    from scipy.stats import norm

    mu = math.sqrt(2 * rho)
    exact = norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)
    assert exact <= delta
