"""What goes wrong in silence unless it is refused: seeds, parts merged twice, centres, numbers."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch

from probkit.errors import ConfigurationError, DtypeError
from probkit.privacy import AccuracyWarning, PrivacyAccountant, PrivacyError, ReleaseFileError
from probkit.similarity import (
    PrivateClassifier,
    PrivateDistance,
    PrivateGPRegression,
    PrivateKDE,
    Release,
    Sketch,
    recommend,
)
from probkit.similarity.classifier import ClassSketch
from probkit.similarity.feature_kde import FeatureKDE

X = torch.rand(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
SEEDED = {
    "dense": lambda seed: PrivateKDE(6, bandwidth=2.0, num_features=20, seed=seed),
    "structured": lambda seed: PrivateKDE(
        6, bandwidth=2.0, num_features=20, projection="structured", seed=seed
    ),
    "jl": lambda seed: PrivateKDE(
        6, bandwidth=2.0, num_features=20, projection="jl", reduced_dim=4, seed=seed
    ),
    "exponentials": lambda seed: PrivateKDE(
        6, "cauchy", bandwidth=2.0, num_features=20, method="exponentials", seed=seed
    ),
    "l2": lambda seed: PrivateDistance(
        6, "l2", radius=3.0, num_directions=8, num_cells=16, seed=seed
    ),
    "regression": lambda seed: PrivateGPRegression(
        6, bandwidth=2.0, target_bound=1.0, num_features=5, seed=seed
    ),
    "classes": lambda seed: ClassSketch(6, [0, 1], bandwidth=2.0, num_features=20, seed=seed),
}


def filled(sketch: Sketch) -> Sketch:
    labelled = isinstance(sketch, PrivateGPRegression | ClassSketch)
    return sketch.update(X, (X[:, 0] > 0.5).long()) if labelled else sketch.update(X)


def released(sketch: Sketch) -> Release:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AccuracyWarning)
        return sketch.release(PrivacyAccountant(rho=1.0))


@pytest.mark.parametrize("seed", [None, "generator", 7], ids=str)
@pytest.mark.parametrize("name", SEEDED)
def test_a_release_answers_the_same_from_its_file_however_it_was_seeded(name, seed, tmp_path):
    given = torch.Generator().manual_seed(1) if seed == "generator" else seed
    release = released(filled(SEEDED[name](given)))
    again = Release.load(release.save(tmp_path / "release"))
    first, second = release.query(X[:5]), again.query(X[:5])
    assert torch.equal(first.value, second.value) and torch.equal(first.sd, second.sd)


@pytest.mark.parametrize("name", SEEDED)
def test_sketches_of_seeds_of_their_own_do_not_merge(name):
    with pytest.raises(ConfigurationError, match="seed"):
        filled(SEEDED[name](None)).merge(filled(SEEDED[name](None)))
    generators = (torch.Generator().manual_seed(1) for _ in range(2))
    first, second = (filled(SEEDED[name](g)) for g in generators)
    assert first.merge(second).count == 80


@pytest.mark.parametrize(
    ("seed", "error"),
    [(-1, ConfigurationError), (2**70, ConfigurationError), (True, DtypeError), ("0", DtypeError)],
)
def test_what_is_no_seed_is_refused(seed, error):
    for name, make in SEEDED.items():
        with pytest.raises(error, match="seed"):
            make(seed)
        assert name
    assert SEEDED["dense"](np.int64(3)).design.spec()["seed"] == 3


def test_a_recommendation_builds_parts_that_merge():
    budget = PrivacyAccountant(epsilon=1.0, delta=1e-6).budget
    choice = recommend(10**5, 6, "gaussian", budget, seed=None)
    first, second = (choice.build().update(X) for _ in range(2))
    assert first.merge(second).count == 80


@pytest.mark.parametrize("projection", ["structured", "jl"])
def test_signs_come_from_the_file_and_from_the_seed_where_it_has_none(projection):
    made = SEEDED[projection](5).design
    stored, spec = made.tensors(), {k: v for k, v in made.spec().items() if k != "kind"}
    other = stored | {"signs": -stored["signs"]}  # the seed may mean other signs elsewhere
    assert torch.equal(
        FeatureKDE.from_spec(spec | {"seed": 6}, stored).tensors()["signs"], stored["signs"]
    )
    assert torch.equal(FeatureKDE.from_spec(spec, other).tensors()["signs"], other["signs"])
    old = {name: value for name, value in stored.items() if name != "signs"}
    again = FeatureKDE.from_spec(spec, old)
    assert torch.equal(again.waves.frequencies, made.waves.frequencies)
    for wrong in (stored["signs"][:1], stored["signs"] * 2):
        with pytest.raises(ValueError, match="signs"):
            FeatureKDE.from_spec(spec, stored | {"signs": wrong})
    with pytest.raises(ValueError, match="seed"):  # written by a version that stored neither
        FeatureKDE.from_spec(spec | {"seed": None}, old)


def change_of_state(action) -> int:
    """How far one record moves the state of what an action makes of a sketch."""
    low, high = torch.zeros(2, 1, dtype=torch.float64), torch.tensor([[1.0], [0.0]])
    states = []
    for x in (low, high.double()):
        sketch = PrivateDistance(1, "l2sq", radius=1.0).update(x)
        action(sketch)
        states.append(sketch.state)
    return int((states[1] - states[0]).abs().sum())


def test_a_record_counts_once_however_its_part_is_merged():
    def refused(merge):
        def act(sketch):
            with pytest.raises(PrivacyError):
                merge(sketch)

        return act

    def twice(sketch):
        whole = PrivateDistance(1, "l2sq", radius=1.0)
        whole.merge(sketch).merge(sketch)

    once = change_of_state(lambda sketch: None)
    for merge in (
        lambda sketch: sketch.merge(sketch),
        lambda sketch: sketch.merge(copy.copy(sketch)),
        lambda sketch: sketch.merge(copy.deepcopy(sketch)),
        lambda sketch: sketch.merge(pickle.loads(pickle.dumps(sketch))),
        lambda sketch: sketch.merge(pickle.loads(pickle.dumps(sketch)).update(X[:, :1])),
        twice,
    ):
        assert change_of_state(refused(merge)) == once


def test_a_part_that_was_merged_has_no_further_use():
    first, second = (filled(SEEDED["dense"](0)) for _ in range(2))
    assert first.merge(second).count == 80 and second.merged and not first.merged
    accountant = PrivacyAccountant(epsilon=1.0)
    for action in (
        lambda: second.update(X),
        lambda: second.merge(filled(SEEDED["dense"](0))),
        lambda: filled(SEEDED["dense"](0)).merge(second),
        lambda: second.release(accountant),
    ):
        with pytest.raises(PrivacyError, match="after merge"):
            action()
    assert first.count == 80 and accountant.ledger == ()
    first.update(X).merge(filled(SEEDED["dense"](0)))
    assert first.count == 160


def test_a_merge_that_is_refused_leaves_both_parts_usable():
    first, second = filled(SEEDED["dense"](0)), filled(SEEDED["dense"](1))
    with pytest.raises(ConfigurationError, match="seed"):
        first.merge(second)
    assert first.update(X).count == second.update(X).count == 80


CENTRED = {
    "kde": lambda center: PrivateKDE(2, bandwidth=1.0, num_features=4, center=center),
    "exponentials": lambda center: PrivateKDE(
        2, "cauchy", bandwidth=1.0, num_features=5, method="exponentials", center=center
    ),
    "regression": lambda center: PrivateGPRegression(
        2, bandwidth=1.0, target_bound=1.0, num_features=4, center=center
    ),
    "l2": lambda center: PrivateDistance(
        2, "l2", radius=1.0, num_directions=4, num_cells=4, center=center
    ),
    "l2sq": lambda center: PrivateDistance(2, "l2sq", radius=1.0, center=center),
}


@pytest.mark.parametrize("name", CENTRED)
def test_a_centre_is_d_finite_numbers(name):
    for wrong in ([float("nan"), 0.0], [0.0, float("inf")], [0.0], 0.0, [[0.0, 0.0]], [1e400, 0]):
        with pytest.raises(ConfigurationError, match="center"):
            CENTRED[name](wrong)
    for wrong in (["a", "b"], [1j, 0]):
        with pytest.raises(DtypeError, match="center"):
            CENTRED[name](wrong)
    for given in ([0.1, 1], np.array([0.1, 1.0]), torch.tensor([0.1, 1.0], dtype=torch.float64)):
        spec = CENTRED[name](given).design.spec()
        assert spec.get("center", spec.get("features", {}).get("center")) == [0.1, 1.0]


def test_bounds_are_real_numbers_whatever_holds_them():
    plain = PrivateDistance(2, bounds=[(0.0, 1.0), (0.0, 2.0)]).design.spec()
    table = torch.tensor([[0.0, 1.0], [0.0, 2.0]], requires_grad=True)
    for bounds in (table, table.detach().numpy(), [(0, 1), (0, 2)], np.array([[0, 1], [0, 2]])):
        assert PrivateDistance(2, bounds=bounds).design.spec() == plain
    pair = torch.tensor([0.0, 1.0], requires_grad=True)
    same = PrivateDistance(2, bounds=(0.0, 1.0)).design.spec()
    assert PrivateDistance(2, bounds=pair).design.spec() == same
    for wrong in (("a", "b"), [(0, 1), (0,)], (0, 1j), np.array([0, 1j]), {"low": 0}, object()):
        with pytest.raises(DtypeError, match="bounds"):
            PrivateDistance(2, bounds=wrong)
    for wrong in (1.0, (0, 1, 2), [(0, 1)] * 3, np.zeros((1, 2, 2)), (1, 0), (0, float("nan"))):
        with pytest.raises(ConfigurationError, match="bounds"):
            PrivateDistance(2, bounds=wrong)


def test_no_number_is_not_the_default_number():
    with pytest.raises(ConfigurationError, match="num_features"):
        PrivateKDE(2, bandwidth=1.0, num_features=0)
    for metric in ({"bounds": (0, 1)}, {"metric": "l2", "radius": 1.0}):
        with pytest.raises(ConfigurationError, match="num_cells"):
            PrivateDistance(2, num_cells=0, **metric)


@pytest.mark.parametrize(
    "length", [np.float32(0.5), np.array(0.5), torch.tensor(0.5), np.float64(0.5)], ids=repr
)
def test_a_bandwidth_is_any_real_number(length):
    sketches = [
        PrivateKDE(2, bandwidth=length, num_features=4),
        PrivateKDE(2, bandwidth=[length], num_features=4),
        ClassSketch(2, [0, 1], bandwidth=length, num_features=4),
        PrivateGPRegression(2, bandwidth=length, target_bound=1.0, num_features=4),
    ]
    for sketch in sketches:
        features = getattr(sketch.design, "features", sketch.design)
        assert features.bandwidths == [0.5] and type(features.bandwidths[0]) is float
    budget = PrivacyAccountant(epsilon=1.0).budget
    choice = recommend(10**5, 2, "gaussian", budget, bandwidth=length)
    assert choice.build().design.bandwidths == [0.5]


def test_several_bandwidths_come_from_any_sequence():
    for several in ((0.5, 1), np.array([0.5, 1.0]), torch.tensor([0.5, 1.0])):
        assert PrivateKDE(2, bandwidth=several, num_features=4).design.bandwidths == [0.5, 1.0]
    for wrong in ([], np.ones((2, 2)), True, "wide", 1j, object(), [None], torch.tensor([])):
        with pytest.raises(ConfigurationError, match="bandwidth"):
            PrivateKDE(2, bandwidth=wrong, num_features=4)


def test_records_are_read_whatever_their_memory_looks_like():
    plain = X.numpy()
    frozen = plain.copy()
    frozen.setflags(write=False)
    state = SEEDED["dense"](0).update(plain).state
    for records in (frozen, plain.astype(">f8"), np.asfortranarray(plain), plain[::-1].copy()):
        assert torch.equal(SEEDED["dense"](0).update(records).state, state)
    with pytest.raises(DtypeError, match="float32 or float64"):
        SEEDED["dense"](0).update(np.zeros((2, 6), dtype=">i4"))


def test_a_classifier_asked_before_its_fit_says_so():
    for ask in (PrivateClassifier().predict, PrivateClassifier().decision_function):
        with pytest.raises(ConfigurationError, match="fit"):
            ask(X)
    with pytest.raises(ConfigurationError, match="fit"):
        PrivateClassifier().score(X, torch.zeros(40))


def test_a_file_without_seed_or_signs_is_refused(tmp_path):
    release = released(filled(SEEDED["structured"](0)))
    release.design.seed = None
    release.design.tensors = lambda: {
        "waves": release.design.law.waves,
        "wave_scale": release.design.law.scale,
    }
    with pytest.raises(ReleaseFileError, match="seed"):
        Release.load(release.save(tmp_path / "release"))
