"""The life cycle of every sketch: merge, release once, save, load; and all that is refused."""

from __future__ import annotations

import json
import pickle
import random
import warnings

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from probkit.errors import ConfigurationError, DataError, DtypeError, ShapeError
from probkit.privacy import (
    AccuracyWarning,
    Budget,
    BudgetExceededError,
    NotPrivateWarning,
    PrivacyAccountant,
    PrivacyError,
    PrivateDataError,
    ReleaseFileError,
    zcdp_of_approximate,
)
from probkit.similarity import PrivateClassifier, PrivateDistance, PrivateKDE, Release, recommend
from probkit.similarity.classifier import ClassSketch
from tests.similarity_cases import BOUNDS, CASES

NAMES = ["l1", "lp 1.5", "consistent tree", "l2", "l2sq", "grid 2d", "gaussian", "inverse_l1"]
NAMES += ["jl", "exponentials"]


def data(name: str, size: int = 60) -> torch.Tensor:
    return CASES[name].draw(size, torch.Generator().manual_seed(0))


def released(name: str = "l1", **options) -> Release:
    options = {"relation": "replace"} | options
    sketch = CASES[name].make(**options).update(data(name))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AccuracyWarning)
        return sketch.release(PrivacyAccountant(rho=1.0, relation=options["relation"]))


@pytest.mark.parametrize("name", NAMES)
def test_parts_merge_to_the_whole_bit_for_bit_in_any_order(name):
    x = data(name, 70)
    whole = CASES[name].make().update(x)
    parts = [CASES[name].make().update(part) for part in x.split(10)]
    random.Random(1).shuffle(parts)
    first, *rest = [pickle.loads(pickle.dumps(part)) for part in parts]
    for part in rest:
        first.merge(part)
    assert torch.equal(first.state, whole.state) and first.count == whole.count


@pytest.mark.parametrize("relation", ["replace", "add_remove"])
@pytest.mark.parametrize("name", NAMES)
def test_a_saved_release_answers_the_same_and_holds_no_exact_count(name, relation, tmp_path):
    release = released(name, relation=relation)
    path = release.save(tmp_path / "release.safetensors")
    again = Release.load(path)
    y = data(name, 10)
    first, second = release.query(y), again.query(y)
    assert torch.equal(first.value, second.value) and torch.equal(first.sd, second.sd)
    assert again.describe() == release.describe() and again.private
    header = json.loads(safe_open(str(path), "pt").metadata()["probkit"])
    assert (header["num_records"] == 60) == (relation == "replace")
    sketch = CASES[name].make(relation=relation).update(data(name))
    exact = sketch.design.statistic(sketch.state, sketch.count, relation)
    stored = load_file(path)
    assert not any(t.shape == exact.shape and torch.equal(t, exact) for t in stored.values())
    public = sum(t.numel() for k, t in stored.items() if k.startswith("public."))
    assert sum(t.numel() for t in stored.values()) - public <= 4 * len(exact)


def test_second_release_update_and_merge_after_release_are_refused():
    sketch = CASES["l1"].make().update(data("l1"))
    accountant = PrivacyAccountant(rho=100)
    sketch.release(accountant, 50)
    for action in (
        lambda: sketch.release(accountant),
        lambda: sketch.update(data("l1")),
        lambda: sketch.merge(CASES["l1"].make()),
        lambda: CASES["l1"].make().merge(sketch),
    ):
        with pytest.raises(PrivacyError, match="after release"):
            action()
    assert len(accountant.ledger) == 1


def test_release_over_budget_leaves_sketch_and_ledger_as_they_were():
    accountant = PrivacyAccountant(rho=100)
    accountant.reserve("earlier", 70).commit()
    sketch = CASES["l1"].make().update(data("l1"))
    with pytest.raises(BudgetExceededError):
        sketch.release(accountant, 50)
    assert not sketch.released and len(accountant.ledger) == 1
    sketch.release(accountant, 25)
    assert accountant.remaining == 5


@pytest.mark.parametrize(
    ("other", "field"),
    [
        (PrivateKDE(2, bandwidth=2.0, num_features=8), "bandwidths"),
        (PrivateKDE(2, "cauchy", bandwidth=1.0, num_features=8), "kernel"),
        (PrivateKDE(2, bandwidth=1.0, num_features=8, seed=1), "seed"),
        (PrivateKDE(2, bandwidth=1.0, num_features=8, relation="add_remove"), "relation"),
        (PrivateKDE(2, bandwidth=1.0, num_features=8, max_rows_per_user=2), "max_rows_per_user"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_merge_of_different_choices_names_the_difference(other, field):
    with pytest.raises(ConfigurationError, match=field):
        PrivateKDE(2, bandwidth=1.0, num_features=8).merge(other)


def test_a_raw_sketch_is_not_saved_by_accident(tmp_path):
    sketch = CASES["l1"].make().update(data("l1"))
    with pytest.raises(PrivacyError, match="allow_private"):
        sketch.save(tmp_path / "raw")
    assert not list(tmp_path.iterdir())
    sketch.save(tmp_path / "raw", allow_private=True)
    with pytest.raises(ReleaseFileError):
        Release.load(tmp_path / "raw")


def nan_row() -> torch.Tensor:
    x = data("l1").clone()
    x[3, 1] = float("nan")
    return x


@pytest.mark.parametrize(
    ("x", "error"),
    [
        (torch.zeros(5, 2), ShapeError),
        (torch.zeros(3), ShapeError),
        (torch.zeros(0, 3), ShapeError),
        (torch.zeros(5, 3, dtype=torch.int64), DtypeError),
        (torch.zeros(5, 3, dtype=torch.bool), DtypeError),
        (torch.zeros(5, 3, dtype=torch.complex128), DtypeError),
        (torch.zeros(5, 3, dtype=torch.float16), DtypeError),
        (np.array([["a", "b", "c"]]), DtypeError),
        (nan_row(), PrivateDataError),
        (torch.full((5, 3), float("inf")), PrivateDataError),
    ],
)
def test_bad_records_are_refused_and_change_nothing(x, error):
    sketch = CASES["l1"].make().update(data("l1"))
    before = sketch.state.clone()
    with pytest.raises(error):
        sketch.update(x)
    assert torch.equal(before, sketch.state) and sketch.count == 60


def test_bad_rows_may_be_dropped_only_where_n_is_private():
    with pytest.raises(ConfigurationError, match="on_bad"):
        CASES["l1"].make(on_bad="drop")
    sketch = CASES["l1"].make(on_bad="drop", relation="add_remove").update(nan_row())
    assert sketch.count == 59


def test_points_outside_are_clipped_in_silence():
    x = data("l1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        far = CASES["l1"].make().update(x * 100)
    assert torch.equal(far.state, CASES["l1"].make().update((x * 100).clamp(*BOUNDS)).state)


def test_too_few_records_and_another_relation_are_refused_before_spending():
    accountant = PrivacyAccountant(epsilon=1)
    for sketch in (
        CASES["l1"].make(),
        CASES["l1"].make().update(data("l1", 1)),
        CASES["l1"].make(relation="add_remove").update(data("l1")),
    ):
        with pytest.raises((ConfigurationError, PrivacyError)):
            sketch.release(accountant)
    assert accountant.ledger == () and accountant.remaining == 1


def test_a_budget_too_small_for_exact_noise_costs_nothing():
    accountant = PrivacyAccountant(epsilon=1e-16)
    with pytest.raises(ConfigurationError, match="budget"):
        CASES["l1"].make().update(data("l1")).release(accountant)
    assert accountant.ledger == () and accountant.remaining == accountant.total


def test_users_need_a_limit_and_a_limit_is_kept_across_parts():
    x = data("l1", 4)
    with pytest.raises(ConfigurationError, match="max_rows_per_user"):
        CASES["l1"].make().update(x, users=[1, 1, 2, 3])
    with pytest.raises(ConfigurationError, match="users"):
        CASES["l1"].make(max_rows_per_user=2).update(x)
    sketch = CASES["l1"].make(max_rows_per_user=2).update(x, users=[1, 1, 2, 3])
    with pytest.raises(PrivateDataError, match="user"):
        sketch.update(x[:1], users=[1])
    with pytest.raises(PrivateDataError, match="user"):
        sketch.merge(CASES["l1"].make(max_rows_per_user=2).update(x[:1], users=[1]))


def test_protecting_users_costs_in_proportion():
    budget = Budget("pure", zcdp_of_approximate(1, 1e-6))
    one, three = (CASES["l1"].make(max_rows_per_user=g).predicted_sd(budget) for g in (1, 3))
    assert three == pytest.approx(3 * one, rel=1e-3)


def test_overflow_is_seen_before_it_happens():
    sketch = CASES["l1"].make()
    sketch.count = 2**27
    with pytest.raises(DataError, match="overflow"):
        sketch.update(data("l1"))


def test_domain_and_bandwidth_have_no_default():
    for make in (
        lambda: PrivateDistance(2),
        lambda: PrivateDistance(2, "l2"),
        lambda: PrivateKDE(2),
        lambda: PrivateKDE(2, bandwidth=1.0, method="grid"),
        lambda: PrivateDistance(2, bounds=(1.0, 1.0)),
        lambda: PrivateDistance(2, bounds=(0.0, float("inf"))),
        lambda: PrivateDistance(2, "lp", bounds=(0, 1)),
        lambda: PrivateDistance(2, "l1", bounds=(0, 1), power=2),
        lambda: PrivateDistance(2, "l3", bounds=(0, 1)),
        lambda: PrivateKDE(2, "sinc", bandwidth=1.0),
        lambda: PrivateKDE(2, bandwidth=-1.0),
        lambda: PrivateKDE(2, "cauchy", bandwidth=1.0, method="grid", bounds=(0, 1)),
        lambda: PrivateKDE(3, bandwidth=1e-4, method="grid", bounds=(0, 1)),
    ):
        with pytest.raises(ConfigurationError):
            make()


def test_queries_are_checked_and_grids_refuse_points_outside():
    release = released("grid 2d")
    with pytest.raises(ShapeError):
        release.query(torch.zeros(3, 5))
    with pytest.raises(DataError, match="NaN"):
        release.query(torch.full((2, 2), float("nan")))
    with pytest.raises(DataError, match="domain"):
        release.query(torch.full((2, 2), 50.0))
    with pytest.raises(ConfigurationError, match="bandwidth"):
        released("gaussian").query(data("gaussian"), bandwidth=7.0)


def test_delta_above_one_over_n_and_useless_noise_are_warned_of():
    x = data("l1")
    with pytest.warns(NotPrivateWarning, match="1/n"):
        CASES["l1"].make().update(x).release(PrivacyAccountant(epsilon=8.0, delta=0.1))
    with pytest.warns(AccuracyWarning):
        CASES["l1"].make().update(x).release(PrivacyAccountant(epsilon=0.01))


def test_seeded_and_floating_point_noise_are_marked(tmp_path):
    sketch = CASES["l1"].make().update(data("l1"))
    with pytest.warns(NotPrivateWarning, match="NOT PRIVATE"):
        release = sketch.release(PrivacyAccountant(rho=1.0), testing_seed=1)
    path = release.save(tmp_path / "release")
    assert not Release.load(path).private and "NOT PRIVATE" in Release.load(path).describe()
    sketch = CASES["l1"].make().update(data("l1"))
    with pytest.warns(NotPrivateWarning, match="Floating-point"):
        release = sketch.release(PrivacyAccountant(epsilon=9.0), insecure_float_noise=True)
    assert "WARNING" in release.describe()


def test_opendp_backend_draws_the_same_kind_of_noise():
    pytest.importorskip("opendp")
    x = data("l2sq")
    release = CASES["l2sq"].make().update(x).release(PrivacyAccountant(rho=10.0), backend="opendp")
    answer = release.query(x[:5])
    assert bool(((answer.value - CASES["l2sq"].exact(x, x[:5])).abs() < 6 * answer.sd).all())


def header_changed(path, **changes):
    """The file with other header fields and a digest that fits."""
    from probkit.similarity.files import _digest

    with safe_open(str(path), "pt") as file:
        header = json.loads(file.metadata()["probkit"])
    tensors = load_file(path)
    text = json.dumps(header | changes, sort_keys=True)
    save_file(tensors, str(path), {"probkit": text, "sha256": _digest(text, tensors)})


def test_damaged_and_altered_files_give_a_typed_error(tmp_path):
    path = released("gaussian").save(tmp_path / "release")
    whole = path.read_bytes()
    damages = [b"", b"not a release", whole[:100], whole[:-8], whole[:-1] + b"\x01"]
    damages += [whole.replace(b"replace", b"delete!"), pickle.dumps(print)]
    for damage in damages:
        path.write_bytes(damage)
        with pytest.raises(ReleaseFileError):
            Release.load(path)
    with pytest.raises(ReleaseFileError):
        Release.load(tmp_path / "absent")


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"relation": "swap"},
        {"budget": {"kind": "zcdp", "amount": "1/1000"}},
        {"budget": {"kind": "zcdp", "amount": "much"}},
        {"noise": "none"},
        {"design": {"kind": "os.system"}},
        {"design": 3},
        {"max_rows_per_user": 3},
    ],
    ids=str,
)
def test_a_header_that_claims_too_much_is_refused(change, tmp_path):
    path = released("l2sq").save(tmp_path / "release")
    header_changed(path, **change)
    with pytest.raises(ReleaseFileError):
        Release.load(path)


def test_classifier_follows_scikit_learn_and_knows_its_classes():
    g = torch.Generator().manual_seed(1)
    x = torch.randn(3000, 3, generator=g)
    y = np.where((x[:, 0] > 0).numpy(), "up", "down")
    model = PrivateClassifier(["up", "down"], bandwidth=2.0, num_features=200)
    assert model.set_params(num_features=300).get_params()["num_features"] == 300
    model.fit(x, y)
    assert model.score(x, y) > 0.85 and model.decision_function(x).shape == (3000, 2)
    clone = PrivateClassifier(**model.get_params())
    assert clone.get_params() == model.get_params()
    with pytest.raises(ConfigurationError, match="argument"):
        model.set_params(depth=3)
    accountant = PrivacyAccountant(epsilon=1)
    with pytest.raises(DataError, match="public list"):
        clone.fit(x, np.where(y == "up", "up", "left"), accountant=accountant)
    assert accountant.ledger == ()


def test_class_sketch_sensitivity_covers_a_change_of_label():
    for relation in ("replace", "add_remove"):
        sketch = ClassSketch(2, [0, 1, 2], bandwidth=1.0, num_features=5, relation=relation)
        design = sketch.design
        claim = design.blocks(relation, 1)
        g = torch.Generator().manual_seed(0)
        worst = 0.0
        for _ in range(300):
            pair = [
                design.contributions(torch.randn(1, 2, generator=g) * 9, torch.tensor([k]))
                for k in torch.randint(0, 3, (2,), generator=g).tolist()
            ]
            if relation == "add_remove":
                pair[1] = torch.zeros_like(pair[0])
            moved = design.statistic(pair[0], 1, relation) - design.statistic(pair[1], 1, relation)
            counts, features = moved.double().split(claim.size.tolist())
            for k, part in enumerate((counts, features)):
                assert float(part.abs().sum()) <= claim.l1[k]
                assert float(torch.linalg.vector_norm(part)) <= claim.l2[k]
            worst = max(worst, float(torch.linalg.vector_norm(features)) / claim.l2[1])
        assert worst > 0.7


def test_recommendation_follows_dimension_and_budget():
    pure, zcdp = (
        Budget("pure", zcdp_of_approximate(1, 1e-2)),
        Budget("zcdp", zcdp_of_approximate(1, 1e-6)),
    )
    low = recommend(10**5, 2, "gaussian", pure, bounds=(0, 9))
    assert low.best.settings["method"] == "grid" and low.build().design.kind == "grid"
    assert recommend(10**5, 50, "gaussian", zcdp).best.settings["num_features"] == 8192
    few = recommend(2000, 50, "gaussian", pure).best
    assert few.settings["num_features"] < 1024
    assert recommend(10**4, 4, "l1", zcdp, bounds=(0, 1)).best.noise > 0
    with pytest.raises(ConfigurationError, match="similarity"):
        recommend(100, 2, "sinc", pure)
    with pytest.warns(AccuracyWarning):
        recommend(10, 500, "l1", pure, bounds=(0, 1))


def test_more_waves_than_a_pure_budget_can_pay_are_warned_of_with_the_best_number():
    x = torch.rand(5000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    few = PrivateKDE(2, bandwidth=1.0, num_features=200).update(x)
    with pytest.warns(AccuracyWarning, match="about 884 would"):
        PrivateKDE(2, bandwidth=1.0, num_features=2000).update(x).release(
            PrivacyAccountant(epsilon=1)
        )
    few.release(PrivacyAccountant(epsilon=1))  # no warning: pytest makes one an error
