"""What every route says of its solution: residuals, resolution, rank, Newton's trace, warnings."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import FitWarning
from probkit.infer import FitResult, Status
from probkit.pde.mixed import has_noisy_rows
from probkit.pde.newton import pointwise
from probkit.pde.problem import Box, Mask, Points, Problem
from probkit.pde.spectrum import Band
from probkit.pde.validation import on_points

__all__ = ["Checked", "diagnose", "residual_between", "warn"]

_UNRESOLVED = 1e-3
_OVERDETERMINED = 1e-6
_MOST_CENTERS = 2000

MeanAt = Callable[[Tensor, tuple[int, ...]], Tensor]
"""the mean of a derivative of u at points"""


@dataclass(frozen=True)
class Checked:
    """What a route knows of its own solution.

    Attributes:
        misfit: F(u) - f at the collocation points.
        conditions: misfit of conditions and data relative to their size.
        size: of the source (root mean square), or of the operator if the source is zero.
        operator_size: of the operator at the highest frequency seen.
        num_features, rank: unknowns, and how many the data determine.
        bands: of every side.
        log_evidence: NaN for exact data.
        skipped: steps of the history before the first Newton step.
    """

    misfit: Float[Tensor, " n"]
    conditions: float
    size: float
    operator_size: float
    num_features: int
    rank: int
    bands: Sequence[Band]
    log_evidence: float
    skipped: int = 0


def diagnose(
    problem: Problem, checked: Checked, history: Mapping[str, list[float]], mean_at: MeanAt
) -> dict[str, Any]:
    """The diagnostics of a result."""
    found: dict[str, Any] = {
        "equation": repr(problem.pde),
        "num_features": checked.num_features,
        "rank": checked.rank,
        "frequency_top": [band.top for band in checked.bands],
        "band_limit": [band.limit for band in checked.bands],
        "points_per_wavelength": [
            2 * band.nyquist / band.top if band.top > 0 else math.inf for band in checked.bands
        ],
        "near_nyquist": any(band.near_nyquist for band in checked.bands),
        "residual_equation": float(checked.misfit.square().mean().sqrt()) / checked.size,
        "residual_conditions": checked.conditions,
        "log_evidence": checked.log_evidence,
        "newton_steps": len(history["objective"]) - checked.skipped,
        "newton_changes": history.get("change", [])[checked.skipped :],
        "under_resolved": False,
        "over_determined": False,
    }
    if problem.noise == 0:
        worst = max(found["residual_equation"], found["residual_conditions"])
        many = _too_many_conditions(problem) and not has_noisy_rows(problem)  # noise has no excess
        found["over_determined"] = many and worst > _OVERDETERMINED
        if callable(problem.source) and not isinstance(problem.domain, Points):
            found["residual_finer"] = residual_between(problem, checked.operator_size, mean_at)
            found["under_resolved"] = found["residual_finer"] > _UNRESOLVED
    return found


def residual_between(problem: Problem, operator_size: float, mean_at: MeanAt) -> float:
    """Root mean square of F(u) - f between the grid's points, relative to f."""
    x = _between(problem)
    source = on_points(problem.source, x, "source")
    misfit = -source
    for term in problem.pde.terms:
        coefficient = term.coefficient
        if isinstance(coefficient, Tensor) and coefficient.dim():
            return 0.0  # known at the points only
        misfit = misfit + on_points(coefficient, x, "coefficient") * mean_at(x, term.orders)
    if problem.pde.nonlinear is not None:
        values = [mean_at(x, orders) for orders in problem.pde.nonlinear_arguments]
        misfit = misfit + pointwise(problem.pde.nonlinear, values)[0]
    size = float(source.square().mean().sqrt()) or operator_size
    return float(misfit.square().mean().sqrt()) / size


def warn(result: FitResult) -> None:
    """Tell of what deserves a look."""
    diagnostics = result.diagnostics
    if diagnostics["under_resolved"]:
        text = "between the points the equation does not hold: the grid is too coarse"
    elif diagnostics["over_determined"]:
        text = (
            "there are more conditions than the equation needs, and they contradict it by "
            f"{diagnostics['residual_conditions']:.1e} (equation: "
            f"{diagnostics['residual_equation']:.1e}) of their size"
        )
    elif diagnostics["near_nyquist"]:
        text = "the source reaches the grid's Nyquist frequency; check with a finer grid"
    elif diagnostics.get("free_constant"):
        text = "the conditions leave a constant free; the solution of zero mean is returned"
    elif result.status is Status.MAX_STEPS and diagnostics.get("point_estimate"):
        text = "the objective was still rising at the last epoch"
    elif result.status is Status.MAX_STEPS:
        text = "Newton's method was stopped before it settled"
    else:
        return
    warnings.warn(f"GPSolver: {text}.", FitWarning, stacklevel=4)


def _between(problem: Problem) -> Float[Tensor, "n d"]:
    """Three points between every two in one dimension; centres of cells in more."""
    domain = problem.domain
    assert isinstance(domain, Box | Mask)
    axes = domain.axes()
    if len(axes) == 1:
        gap = axes[0][1] - axes[0][0]
        return torch.cat([axes[0][:-1] + gap * share for share in (0.25, 0.5, 0.75)])[:, None]
    inside = torch.ones(domain.sizes, dtype=torch.bool)
    if isinstance(domain, Mask):
        inside = domain.inside.reshape(domain.sizes)
    for k in range(len(axes)):
        count = domain.sizes[k] - 1
        inside = inside.narrow(k, 0, count) & inside.narrow(k, 1, count)
    place = inside.reshape(-1).nonzero()[:, 0]
    place = place[:: max(len(place) // _MOST_CENTERS, 1)]
    index = torch.unravel_index(place, inside.shape)
    centers = [a[i] + (a[1] - a[0]) / 2 for a, i in zip(axes, index, strict=True)]
    return torch.stack(centers, 1)


def _too_many_conditions(problem: Problem) -> bool:
    """Whether some axis has more conditions than its order, or data are given besides."""
    pde = problem.pde
    faces = [c.where[0] for c in problem.conditions if isinstance(c.where, tuple)]
    return problem.data is not None or any(
        faces.count(axis) > pde.order(axis) for axis in range(pde.dim)
    )
