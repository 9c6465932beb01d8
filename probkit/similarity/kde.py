"""``PrivateKDE``: kernel density and kernel similarity with private records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from probkit.errors import ConfigurationError, message
from probkit.privacy.budget import Relation
from probkit.random import Seed
from probkit.similarity.design import Design
from probkit.similarity.exponential_sums import ExponentialSumKDE
from probkit.similarity.feature_kde import FeatureKDE
from probkit.similarity.grid_kde import GridKDE
from probkit.similarity.sketch import Sketch
from probkit.similarity.spectral_laws import CompletelyMonotone
from probkit.similarity.validation import check_box, check_center, check_lengths, public_seed
from probkit.validation import check_choice, check_positive, check_whole

__all__ = ["PrivateKDE"]


class PrivateKDE(Sketch):
    """Private data structure for the mean of k((x_i - y) / bandwidth) over the records.

    Args:
        dim: number of coordinates.
        kernel: "gaussian" exp(-s2^2), "exponential" exp(-s2), "laplacian" exp(-s1),
            "cauchy" 1/(1+s2^2), "inverse" 1/(1+s2), "inverse_l1" 1/(1+s1), or a
            ``CompletelyMonotone``; s1, s2 the l1 and l2 norms of (x - y) / bandwidth.
        bandwidth: a length, public; or several, all answered by one release.
        method: "features" (random waves, any dimension), "grid" (B-splines, d <= 3), or
            "exponentials" (the paper's way for the last three kernels; to compare with).
        bounds: domain of the grid.
        num_features: m waves; None for 4096.
        center: (d,) middle of the domain of "features", which reaches 1024 bandwidths around it;
            None for the origin.
        spacing: cell width of the grid over the bandwidth; None for 0.7 (0.35 for kernels with a
            kink).
        projection: "dense" waves; "structured" ones, which cost O(m log d) a record in place of
            O(m d): for one bandwidth of a kernel of the l2 distance, in dozens of dimensions or
            more; or "jl", the paper's: dense waves of records reduced to ``reduced_dim``
            dimensions, with a bias of about 1 / sqrt(2 reduced_dim) of the distances.
        reduced_dim: k of "jl".
        accuracy: largest error of a sum of "exponentials".
        seed: public; of the waves. None or a generator draws one, which the release states; parts
            that are to be merged need the same whole number.
        relation, max_rows_per_user, on_bad: see ``Sketch``.

    Raises:
        ConfigurationError: an unknown kernel, a setting out of range, a centre that is not d
            finite numbers, a missing domain or bandwidth: both must be public, and one taken from
            the data is not.
        DtypeError: a seed or a centre of another kind.

    Example:
        >>> import torch
        >>> from probkit.privacy import PrivacyAccountant
        >>> x = torch.randn(5000, 2, dtype=torch.float64)
        >>> kde = PrivateKDE(2, "gaussian", bandwidth=1.0, num_features=500).update(x)
        >>> release = kde.release(PrivacyAccountant(epsilon=1.0, delta=1e-6))
        >>> answer = release.query(torch.zeros(1, 2, dtype=torch.float64))
        >>> bool(abs(answer.value - 1 / 3) < 6 * answer.sd)  # E exp(-norm^2) in the plane
        True

    References:
        Modules ``feature_kde``, ``grid_kde``, ``reduced_waves`` and ``exponential_sums``; Wagner,
        Naamad, Mishra, ICML 2023 (LSQ) and Backurs et al., ICLR 2024, for the problem.
    """

    def __init__(
        self,
        dim: int,
        kernel: str | CompletelyMonotone = "gaussian",
        *,
        bandwidth: float | Sequence[float] | None = None,
        method: Literal["features", "grid", "exponentials"] = "features",
        bounds: Any = None,
        num_features: int | None = None,
        center: Any = None,
        spacing: float | None = None,
        projection: Literal["dense", "structured", "jl"] = "dense",
        reduced_dim: int | None = None,
        accuracy: float = 0.01,
        seed: Seed = 0,
        relation: Relation = "replace",
        max_rows_per_user: int = 1,
        on_bad: Literal["error", "drop"] = "error",
    ) -> None:
        dim = check_whole("dim", dim, 1, 2**16)
        if bandwidth is None:
            raise ConfigurationError(
                message(
                    "The bandwidth must be declared",
                    where="bandwidth",
                    remedy="give several, and choose from the release: it costs nothing then",
                )
            )
        lengths = check_lengths("bandwidth", bandwidth)
        drawn = public_seed(seed)
        design: Design
        check_choice("method", "method", method, ("features", "grid", "exponentials"))
        if method == "grid":
            design = _grid(dim, kernel, lengths, bounds, spacing)
        else:
            wanted = 4096 if num_features is None else num_features
            num = check_whole("num_features", wanted, 1, 2**20)
            middle = check_center(center, dim)
            if method == "exponentials":
                near = check_positive("accuracy", accuracy)
                name, length = _single(kernel, lengths, "A sum of exponentials")
                design = ExponentialSumKDE(dim, name, length, num, near, drawn, middle)
            else:
                short = _reduced_dim(projection, reduced_dim, dim, lengths)
                design = FeatureKDE(
                    *(dim, kernel, lengths, num, drawn, middle),
                    projection=projection,
                    reduced_dim=short,
                )
        super().__init__(
            design, relation=relation, max_rows_per_user=max_rows_per_user, on_bad=on_bad
        )


def _grid(
    dim: int,
    kernel: str | CompletelyMonotone,
    lengths: list[float],
    bounds: Any,
    spacing: float | None,
) -> GridKDE:
    name, length = _single(kernel, lengths, "A grid")
    low, high = check_box(bounds, dim)
    wide = 0.7 if name in ("gaussian", "cauchy") else 0.35
    space = wide if spacing is None else check_positive("spacing", spacing)
    return GridKDE(low, high, name, length, space)


def _single(kernel: str | CompletelyMonotone, lengths: list[float], what: str) -> tuple[str, float]:
    if len(lengths) == 1 and isinstance(kernel, str):
        return kernel, lengths[0]
    text = f"{what} has one bandwidth and a named kernel"
    raise ConfigurationError(message(text, where="bandwidth, kernel", got=(lengths, kernel)))


def _reduced_dim(
    projection: str, reduced_dim: int | None, dim: int, lengths: list[float]
) -> int | None:
    """The dimension that the waves live in, if it is not that of the records."""
    if projection not in ("dense", "structured", "jl") or (
        projection == "structured" and len(lengths) != 1
    ):
        raise ConfigurationError(
            message(
                'Waves are "dense", "jl", or "structured" for one bandwidth',
                where="projection, bandwidth",
                got=(projection, lengths),
            )
        )
    if (projection == "jl") != (reduced_dim is not None):
        raise ConfigurationError(
            message(
                'A reduction needs its dimension, and the dimension projection="jl"',
                where="reduced_dim, projection",
                got=(reduced_dim, projection),
            )
        )
    return None if reduced_dim is None else check_whole("reduced_dim", reduced_dim, 1, dim)
