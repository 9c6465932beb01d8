"""Users, labels and targets mean the same whatever holds them; what means nothing is refused."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from probkit.errors import ConfigurationError, DataError, DtypeError, ShapeError
from probkit.privacy import AccuracyWarning, PrivateDataError
from probkit.similarity import PrivateClassifier, PrivateDistance, PrivateGPRegression, Sketch
from probkit.similarity.classifier import ClassSketch

X = torch.rand(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def regression() -> Sketch:
    return PrivateGPRegression(6, bandwidth=2.0, target_bound=1.0, num_features=5)


def labelled() -> Sketch:
    return ClassSketch(6, [0, 1], bandwidth=2.0, num_features=20)


def limited(max_rows_per_user: int = 2) -> Sketch:
    return PrivateDistance(1, bounds=(0.0, 1.0), max_rows_per_user=max_rows_per_user)


IDS = {
    "list": list,
    "tuple": tuple,
    "integers": torch.tensor,
    "floats": lambda ids: torch.tensor(ids, dtype=torch.float64),
    "tensors": lambda ids: [torch.tensor(i) for i in ids],
    "pairs": lambda ids: [("a", torch.tensor(i)) for i in ids],
    "array": np.array,
    "objects": lambda ids: np.array([str(i) for i in ids], dtype=object),
    "series": lambda ids: pd.Series(ids, index=range(5, 5 + len(ids))),
    "categories": lambda ids: pd.Series([str(i) for i in ids], dtype="category"),
}


@pytest.mark.parametrize("name", IDS)
def test_rows_of_a_user_are_counted_whatever_holds_the_ids(name):
    make = IDS[name]
    with pytest.raises(PrivateDataError, match="more rows"):
        limited().update(X[:4, :1], users=make([3, 4, 3, 3]))
    sketch = limited().update(X[:4, :1], users=make([3, 4, 3, 4]))
    assert list(sketch._users.values()) == [2, 2]
    with pytest.raises(PrivateDataError, match="more rows"):  # across parts
        sketch.update(X[:1, :1], users=make([3]))
    with pytest.raises(PrivateDataError, match="more rows"):
        sketch.merge(limited().update(X[:1, :1], users=make([4])))
    assert sketch.count == 4


def test_users_as_tensors_arrays_and_lists_are_the_same_users():
    sketch = limited(4)
    for users in ([7], np.array([7]), torch.tensor([7]), pd.Series([7.0])):
        sketch.update(X[:1, :1], users=users)
    assert dict(sketch._users) == {7: 4}


NAN = float("nan")


@pytest.mark.parametrize(
    "users",
    [
        [None] * 4,
        [float("nan") for _ in range(4)],
        [("a", float("nan")) for _ in range(4)],
        np.array([NAN, 1.0, NAN, 2.0]),
        torch.tensor([NAN, 1.0, NAN, 2.0]),
        pd.Series([NAN] * 4),
        pd.Series([1, 2, 3, None], dtype="Int64"),
        pd.Series(["2020-01-01", None, None, None], dtype="datetime64[ns]"),
        np.array(["NaT"] * 4, dtype="datetime64[ns]"),
        [["secret"], ["secret"], ["secret"], ["secret"]],
        [{"secret": 1}] * 4,
        [np.array(["secret", "secret"])] * 4,
    ],
)
def test_a_row_without_a_countable_owner_is_refused(users):
    sketch = limited()
    with pytest.raises(PrivateDataError, match="users") as caught:
        sketch.update(X[:4, :1], users=users)
    assert "secret" not in str(caught.value)
    assert sketch.count == 0 and not sketch.state.any()


def test_users_are_one_id_a_row():
    table = pd.DataFrame({"user": [1, 1, 1, 1]})
    for users in (table, torch.ones(4, 1), torch.tensor(1), [1, 1], pd.Series([1, 2])):
        with pytest.raises(ShapeError, match="users"):
            limited().update(X[:4, :1], users=users)
    for users in (1, dict.fromkeys(range(4), "a")):
        with pytest.raises(DtypeError, match="users"):
            limited().update(X[:4, :1], users=users)


def frozen(values) -> np.ndarray:
    array = np.array(values)
    array.setflags(write=False)
    return array


COLUMNS = {
    "series": lambda values: pd.Series(values, index=range(5, 5 + len(values))),
    "read-only": frozen,
    "big-endian": lambda values: np.array(values).astype(">f8"),
    "gradient": lambda values: torch.tensor(values, dtype=torch.float64, requires_grad=True),
    "tuple": tuple,
}


@pytest.mark.parametrize("name", COLUMNS)
def test_targets_and_labels_are_read_whatever_holds_them(name):
    values = [0, 1, 1, 0]
    for make in (regression, labelled):
        plain = make().update(X[:4], values).state
        assert torch.equal(make().update(X[:4], COLUMNS[name](values)).state, plain)
    design = labelled().design
    plain = Sketch(design).update(X[:4], torch.tensor(values)).state
    assert torch.equal(Sketch(design).update(X[:4], COLUMNS[name](values)).state, plain)


def test_targets_that_are_no_numbers_are_refused():
    design = labelled().design
    for make in (regression, lambda: Sketch(design)):
        for wrong in (["a", "b"], [1j, 0], [[0], [0, 1]], [None, 1]):
            with pytest.raises(DtypeError, match="labels"):
                make().update(X[:2], wrong)
        with pytest.raises(ShapeError, match="labels"):
            make().update(X[:2], [0])
    for wrong in ([2, 0], [[0], [0, 1]], [[0], [1]], [None, 0], 0):
        with pytest.raises(DataError, match="labels"):
            labelled().update(X[:2], wrong)


@pytest.mark.parametrize(
    "classes",
    [
        torch.tensor([0, 1]),
        [torch.tensor(0), torch.tensor(1)],
        np.array([0, 1]),
        [np.int64(0), np.int64(1)],
        pd.Series([0, 1]),
        (0.0, 1.0),
    ],
)
def test_the_public_list_of_classes_is_of_plain_values(classes):
    labels = (X[:, 0] > 0.5).long()
    sketch = ClassSketch(6, classes, bandwidth=2.0, num_features=20).update(X, labels)
    assert sketch.classes == [0, 1] and not any(hasattr(c, "dtype") for c in sketch.classes)
    assert sketch.merge(labelled().update(X, labels)).count == 80
    model = PrivateClassifier(classes, bandwidth=2.0, num_features=20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AccuracyWarning)
        model.fit(X, labels)
    assert set(model.predict(X)) <= {0, 1} and model.classes is classes


def test_what_is_no_list_of_classes_is_refused():
    same = (["a", "a"], ["a"], [], [torch.tensor(1), torch.tensor(1)])
    for wrong in (*same, 2, [[0], [1]], torch.zeros(2, 2), np.zeros((2, 2)), [torch.ones(2)] * 2):
        with pytest.raises(ConfigurationError, match="classes"):
            ClassSketch(6, wrong, bandwidth=2.0, num_features=20)
