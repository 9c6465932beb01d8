"""``PrivateClassifier``: the class of highest private mean similarity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probkit.errors import ConfigurationError, DataError, message
from probkit.privacy.accountant import PrivacyAccountant
from probkit.privacy.budget import Amount, Relation
from probkit.random import Seed
from probkit.similarity.class_features import ClassFeatures
from probkit.similarity.feature_kde import FeatureKDE
from probkit.similarity.release import Release
from probkit.similarity.sketch import Sketch
from probkit.similarity.validation import check_length, public_seed
from probkit.validation import check_whole

__all__ = ["ClassSketch", "PrivateClassifier"]

_ARGUMENTS = (
    "classes",
    "kernel",
    "bandwidth",
    "num_features",
    "seed",
    "epsilon",
    "delta",
    "relation",
)


class ClassSketch(Sketch):
    """Raw state of all classes: ``update(records, labels)`` with labels from ``classes``.

    Args:
        dim: number of coordinates.
        classes: the public list of labels.
        kernel, bandwidth, num_features, seed: of ``PrivateKDE``.
        relation, max_rows_per_user, on_bad: of ``Sketch``.

    Raises:
        ConfigurationError: fewer than two classes, one twice, or a setting out of range.
        DtypeError: what is no seed.

    Example:
        >>> x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        >>> sketch = ClassSketch(1, ["a", "b"], bandwidth=0.5, num_features=8)
        >>> sketch.update(x, ["a", "b"]).count
        2
    """

    def __init__(
        self,
        dim: int,
        classes: Sequence[Any],
        *,
        kernel: str = "gaussian",
        bandwidth: float,
        num_features: int = 2048,
        seed: Seed = 0,
        relation: Relation = "replace",
        max_rows_per_user: int = 1,
        on_bad: Literal["error", "drop"] = "error",
    ) -> None:
        self.classes = _public_list(classes)
        dim = check_whole("dim", dim, 1, 2**16)
        num = check_whole("num_features", num_features, 1, 2**20)
        length = check_length("bandwidth", bandwidth)
        features = FeatureKDE(dim, kernel, [length], num, public_seed(seed), [0.0] * dim)
        super().__init__(
            ClassFeatures(features, len(self.classes)),
            relation=relation,
            max_rows_per_user=max_rows_per_user,
            on_bad=on_bad,
        )

    def _classes(self, labels: Any, length: int) -> Tensor | None:
        """Positions in the public list; a label outside it would change the list by the data."""
        if labels is None:
            raise ConfigurationError(message("Classes need labels", where="labels"))
        index = {label: k for k, label in enumerate(self.classes)}
        try:
            given = labels if isinstance(labels, Tensor) else np.asarray(labels)
            codes = [index[label] for label in given.tolist()]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                message(
                    "A label is not in the public list of classes",
                    where="labels",
                    expected=f"one of {self.classes}",
                    remedy="declare every label that can occur",
                )
            ) from error
        return super()._classes(torch.tensor(codes), length)

    def _choices(self) -> dict[str, Any]:
        return {**super()._choices(), "classes": self.classes}


def _public_list(classes: Any) -> list[Any]:
    """Labels as plain values: a tensor is equal to no other as a key.

    Raises:
        ConfigurationError: fewer than two, one twice, or what is no list of labels.
    """
    try:
        given = classes.tolist() if isinstance(classes, Tensor) else list(classes)
        labels = [c.item() if isinstance(c, Tensor | np.generic) else c for c in given]
        different = len(set(labels))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigurationError(
            message(
                "Classes must be labels such as numbers or text",
                where="classes",
                got=type(classes).__name__,
                expected="a list of two different labels or more",
            )
        ) from error
    if different < 2 or different != len(labels):
        raise ConfigurationError(
            message("Classes must be two different labels or more", where="classes", got=labels)
        )
    return labels


class PrivateClassifier:
    """Classification by mean kernel similarity, trained in one private release.

    Follows scikit-learn: the constructor stores its arguments, ``fit`` validates, fitted
    attributes end in ``_``.

    Args:
        classes: the public list of labels.
        kernel, bandwidth, num_features, seed: of ``PrivateKDE``; the bandwidth must be public.
        epsilon, delta: budget of ``fit`` if it is given no accountant; delta None for pure DP.
        relation: "replace" protects a record and its label; or "add_remove".

    Attributes:
        classes_: (C,) labels.
        release_: the release, public: ``release_.query(X)`` has the class means with errors.

    Example:
        >>> x = torch.randn(4000, 2, dtype=torch.float64)
        >>> y = (x[:, 0] > 0).long()
        >>> model = PrivateClassifier([0, 1], bandwidth=2.0, num_features=200)
        >>> bool(model.fit(x, y).score(x, y) > 0.8)
        True

    References:
        Backurs et al., ICLR 2024, arXiv 2403.08917, section on classification.
    """

    def __init__(
        self,
        classes: Sequence[Any] = (0, 1),
        *,
        kernel: str = "gaussian",
        bandwidth: float = 1.0,
        num_features: int = 2048,
        seed: Seed = 0,
        epsilon: Amount = 1.0,
        delta: float | None = 1e-6,
        relation: Relation = "replace",
    ) -> None:
        self.classes = classes
        self.kernel = kernel
        self.bandwidth = bandwidth
        self.num_features = num_features
        self.seed = seed
        self.epsilon = epsilon
        self.delta = delta
        self.relation = relation

    def fit(self, X: Any, y: Any, *, accountant: PrivacyAccountant | None = None) -> Self:
        """Release class-wise similarities of the records and labels.

        Args:
            X: (N, d) float32 or float64.
            y: (N,) labels from ``classes``.
            accountant: pays with all that it has; None to make one from epsilon and delta.

        Raises:
            DataError, ShapeError, DtypeError, ConfigurationError: nothing is released then.
        """
        if accountant is None:
            accountant = PrivacyAccountant(
                epsilon=self.epsilon, delta=self.delta, relation=self.relation
            )
        sketch = ClassSketch(
            np.shape(X)[-1],
            self.classes,
            kernel=self.kernel,
            bandwidth=self.bandwidth,
            num_features=self.num_features,
            seed=self.seed,
            relation=self.relation,
        )
        sketch.update(X, y)
        self.release_: Release = sketch.release(accountant)
        self.classes_ = np.asarray(sketch.classes)
        return self

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Private mean similarity to every class, (Q, C).

        Raises:
            ConfigurationError: the model is not fitted.
            DataError, ShapeError, DtypeError: points of another kind.
        """
        if not hasattr(self, "release_"):
            raise ConfigurationError(
                message("The model is not fitted", remedy="call fit(X, y) first")
            )
        return self.release_.query(X, normalize=False).value.cpu().numpy()

    def predict(self, X: Any) -> NDArray[Any]:
        """The class of highest mean similarity, (Q,).

        Raises:
            ConfigurationError: the model is not fitted.
        """
        best = self.decision_function(X).argmax(-1)
        return np.asarray(self.classes_[best])

    def score(self, X: Any, y: Any) -> float:
        """Share of labels predicted right.

        Raises:
            ConfigurationError: the model is not fitted.
        """
        return float((self.predict(X) == np.asarray(y)).mean())

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments."""
        return {name: getattr(self, name) for name in _ARGUMENTS}

    def set_params(self, **params: Any) -> Self:
        """Change arguments of the constructor.

        Raises:
            ConfigurationError: an argument that there is not.
        """
        unknown = set(params) - set(self.get_params())
        if unknown:
            raise ConfigurationError(message("No such argument", got=", ".join(sorted(unknown))))
        for name, value in params.items():
            setattr(self, name, value)
        return self
