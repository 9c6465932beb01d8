"""``PrivateGPRegression``: a private table of targets becomes a function with error bars."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from probkit.errors import ConfigurationError, ShapeError, message
from probkit.privacy.budget import Relation
from probkit.privacy.errors import PrivateDataError
from probkit.random import Seed
from probkit.similarity.feature_kde import FeatureKDE
from probkit.similarity.sketch import Sketch
from probkit.similarity.validation import check_center, check_length, public_seed
from probkit.similarity.weight_space import TARGET_UNIT, WeightSpace
from probkit.validation import as_real, check_positive, check_whole

__all__ = ["PrivateGPRegression"]


class PrivateGPRegression(Sketch):
    """Gaussian process regression by random waves with private records and targets.

    ``update(X, y)`` adds records, ``release(accountant)`` publishes, and the release's ``query(X)``
    has the posterior mean and sd of the function, the mechanism's noise included.

    Args:
        dim: number of coordinates.
        kernel: a name of ``KERNELS``.
        bandwidth: a length, public.
        target_bound: targets are clipped to [-target_bound, target_bound], public: centre them
            by public knowledge.
        noise_sd: sd of an observation around the function; a query may take another.
        amplitude: prior sd of the function; likewise.
        num_features: m waves, at most 256: the release has about 2 m^2 numbers, and its noise
            grows with m.
        center: (d,) middle of the domain; None for the origin.
        seed: public; of the waves. None or a generator draws one.
        relation, max_rows_per_user, on_bad: see ``Sketch``.

    Raises:
        ConfigurationError: a setting out of range, or a centre that is not d finite numbers.
        DtypeError: a seed or a centre of another kind.

    Example:
        >>> from probkit.privacy import PrivacyAccountant
        >>> x = torch.linspace(-2, 2, 20000, dtype=torch.float64)[:, None]
        >>> sketch = PrivateGPRegression(1, bandwidth=1.0, target_bound=1.0, num_features=8)
        >>> sketch = sketch.update(x, x[:, 0].sin())
        >>> release = sketch.release(PrivacyAccountant(epsilon=2.0, delta=1e-6))
        >>> answer = release.query(torch.tensor([[1.0]], dtype=torch.float64))
        >>> bool(abs(answer.value - 0.84) < 0.3)
        True

    References:
        Module ``weight_space``.
    """

    def __init__(
        self,
        dim: int,
        kernel: str = "gaussian",
        *,
        bandwidth: float,
        target_bound: float,
        noise_sd: float = 0.1,
        amplitude: float = 1.0,
        num_features: int = 32,
        center: Any = None,
        seed: Seed = 0,
        relation: Relation = "replace",
        max_rows_per_user: int = 1,
        on_bad: Literal["error", "drop"] = "error",
    ) -> None:
        dim = check_whole("dim", dim, 1, 2**16)
        features = FeatureKDE(
            dim,
            kernel,
            [check_length("bandwidth", bandwidth)],
            check_whole("num_features", num_features, 1, 256),
            public_seed(seed),
            check_center(center, dim),
        )
        self.target_bound = check_positive("target_bound", target_bound)
        design = WeightSpace(
            features,
            self.target_bound,
            check_positive("noise_sd", noise_sd),
            check_positive("amplitude", amplitude),
        )
        super().__init__(
            design, relation=relation, max_rows_per_user=max_rows_per_user, on_bad=on_bad
        )

    def _classes(self, labels: Any, length: int) -> Tensor:
        """Targets as whole numbers of bound / 4096."""
        if labels is None:
            raise ConfigurationError(message("A regression needs targets", where="labels"))
        targets = as_real(labels, "labels").to(torch.float64)
        if targets.shape != (length,):
            raise ShapeError(
                message(
                    "One target a record", where="labels", got=tuple(targets.shape), expected=length
                )
            )
        if not bool(torch.isfinite(targets).all()):
            raise PrivateDataError(message("Some targets are NaN or infinite", where="labels"))
        scaled = targets * (TARGET_UNIT / self.target_bound)
        return torch.floor(scaled + 0.5).clamp(-TARGET_UNIT, TARGET_UNIT).to(torch.int64)
