"""``PrivateDistance``: sums of distances from queries to private records."""

from __future__ import annotations

from typing import Any, Literal

from probkit.errors import ConfigurationError, message
from probkit.privacy.budget import Relation
from probkit.random import Seed
from probkit.similarity.design import Design
from probkit.similarity.halfspaces import Halfspaces
from probkit.similarity.moments import Moments
from probkit.similarity.sketch import Sketch
from probkit.similarity.spectral import SpectralDistance
from probkit.similarity.trees import DyadicTrees
from probkit.similarity.validation import check_box, check_center, public_seed
from probkit.validation import check_choice, check_positive, check_whole

__all__ = ["PrivateDistance"]


class PrivateDistance(Sketch):
    """Private data structure for sum_i distance(x_i, y).

    Args:
        dim: number of coordinates.
        metric: "l1", "l2", "l2sq" (squared l2) or "lp" (sum of abs(x - y)^power).
        bounds: domain of l1 and lp: (low, high) for all coordinates, or a pair for each.
        radius: domain of l2 and l2sq: a ball.
        center: (d,) its centre; None for the origin.
        power: p of "lp".
        method: "spectral" (default for l1 and lp) or "tree" (the paper's).
        num_cells: grid of a coordinate or direction; None for 4096 (512 for d > 500, and for l2).
        num_directions: of l2.
        height: 2^height leaves of a tree.
        alpha: intervals of the tree's distances grow by 1 + alpha.
        consistent: average the tree to consistency and answer from its leaves.
        seed: public; of the directions. None or a generator draws one.
        relation, max_rows_per_user, on_bad: see ``Sketch``.

    Raises:
        ConfigurationError: a missing domain, a setting out of range, or a centre that is not d
            finite numbers.
        DtypeError: a seed or a centre of another kind.

    Example:
        >>> import torch
        >>> from probkit.privacy import PrivacyAccountant
        >>> x = torch.rand(2000, 1, dtype=torch.float64)
        >>> sketch = PrivateDistance(1, metric="l1", bounds=(0.0, 1.0)).update(x)
        >>> release = sketch.release(PrivacyAccountant(epsilon=1.0))
        >>> answer = release.query(torch.tensor([[0.5]], dtype=torch.float64))
        >>> bool(abs(answer.value - (x - 0.5).abs().sum()) < 40)
        True

    References:
        Backurs, Lin, Mahabadi, Silwal, Tarnawski, ICLR 2024, arXiv 2403.08917 (the trees); the
        modules ``spectral``, ``halfspaces`` and ``moments`` have ours.
    """

    def __init__(
        self,
        dim: int,
        metric: Literal["l1", "l2", "l2sq", "lp"] = "l1",
        *,
        bounds: Any = None,
        radius: float | None = None,
        center: Any = None,
        power: float | None = None,
        method: Literal["spectral", "tree"] = "spectral",
        num_cells: int | None = None,
        num_directions: int = 512,
        height: int = 10,
        alpha: float = 0.1,
        consistent: bool = False,
        seed: Seed = 0,
        relation: Relation = "replace",
        max_rows_per_user: int = 1,
        on_bad: Literal["error", "drop"] = "error",
    ) -> None:
        dim = check_whole("dim", dim, 1, 2**16)
        check_choice("metric", "metric", metric, ("l1", "l2", "l2sq", "lp"))
        if (metric == "lp") != (power is not None):
            raise ConfigurationError(
                message("power goes with lp", where="metric, power", got=(metric, power))
            )
        drawn = public_seed(seed)
        design: Design
        if metric in ("l1", "lp"):
            check_choice("method", "method", method, ("spectral", "tree"))
            low, high = check_box(bounds, dim)
            p = 1.0 if power is None else check_positive("power", power)
            if method == "tree":
                height = check_whole("height", height, 1, 24)
                alpha = check_positive("alpha", alpha)
                design = DyadicTrees(low, high, height, p, alpha, consistent)
            else:
                default = 4096 if dim <= 500 else 512
                wanted = default if num_cells is None else num_cells
                cells = check_whole("num_cells", wanted, 2, 4096, even=True)
                design = SpectralDistance(low, high, cells, p)
        else:
            design = _ball_design(dim, metric, radius, center, num_directions, num_cells, drawn)
        super().__init__(
            design, relation=relation, max_rows_per_user=max_rows_per_user, on_bad=on_bad
        )


def _ball_design(
    dim: int,
    metric: str,
    radius: float | None,
    center: Any,
    num_directions: int,
    num_cells: int | None,
    seed: int,
) -> Design:
    r = check_positive("radius", radius)
    middle = check_center(center, dim)
    if metric == "l2sq":
        return Moments(middle, r)
    check_whole("dim", dim, 1, 2**11)
    directions = check_whole("num_directions", num_directions, 2, 2**14)
    cells = check_whole("num_cells", 512 if num_cells is None else num_cells, 2, 1024, even=True)
    return Halfspaces(middle, r, directions, cells, seed)
